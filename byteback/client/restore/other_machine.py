"""Restores of another machine's files, which root makes on the server (D54).

The files came from a client that may be hostile: setuid programs, devices, owners by
number. So they go into a directory that root alone can enter, and hands over.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from byteback.client.restore.bring import others_may_enter
from byteback.client.restore.plan import Layout
from byteback.errors import UsageError, quote

OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def check_patterns(client: str, patterns: Sequence[str]) -> None:
    """Raise UsageError for a pattern that begins in a directory of this machine."""
    for pattern in patterns:
        if not pattern.startswith("/"):
            raise UsageError(
                f"{quote(pattern)} begins in a directory of this machine, and not of "
                f"{quote(client)}",
                hint="with --host, begin each pattern with a slash",
            )


def prepare_layout(
    client: str, layout: Layout, store: Path, *, insist: bool = False
) -> Layout:
    """``layout`` for another machine's files; UsageError if they may not go there.

    With ``insist`` a directory that other users can enter will do.
    """
    directory = layout.directory
    if os.path.realpath(directory) == "/" or _is_same(directory, Path("/")):
        if layout.by_snapshot:
            return replace(layout, is_private=True)
        raise UsageError(
            f"files of {quote(client)} would take the places of this machine's own",
            hint="restore below a directory with --to, and hand that over",
        )
    if _is_inside(directory, store):
        raise UsageError(
            f"{quote(str(directory))} is in the store itself, where nothing but "
            "backups may be written",
            hint="restore elsewhere, with --to",
        )
    if not insist and not layout.by_snapshot and others_may_enter(directory):
        raise UsageError(
            f"other users can enter {quote(str(directory))}: setuid programs and "
            f"devices of {quote(client)} would be theirs to use on this machine",
            hint="name a directory that is not there yet, or shut this one with "
            "'chmod 700'; --yes restores into it as it is",
        )
    made = directory / "a snapshot" if layout.by_snapshot else directory
    unsafe = None if insist else replaceable_in(made)
    if unsafe is not None:
        raise UsageError(
            f"other users can replace what is in {quote(str(unsafe))}, on the way to "
            f"{quote(str(directory))}: what is restored could go elsewhere, or be "
            "theirs to use",
            hint="restore below a directory of root's, such as /root; --yes restores "
            "there as it is",
        )
    return replace(layout, is_private=True)


def replaceable_in(directory: Path) -> Path | None:
    """The directory or link on the way in whose place others can put another one.

    None if there is none: all are root's, or of the user who became root by sudo, and
    no other user can write to them, but where the sticky bit keeps names from others.
    """
    lexical, real = directory.absolute(), Path(os.path.realpath(directory))
    trusted = {"0", os.environ.get("SUDO_UID", "0")}
    for one in {lexical, *lexical.parents, *real.parents}:
        try:
            found = one.lstat()
        except OSError:
            continue  # it will be made
        is_link, is_last = stat.S_ISLNK(found.st_mode), one in (lexical, real)
        if is_last and not is_link:
            continue  # others_may_enter judges it
        if str(found.st_uid) not in trusted:
            return one
        is_open = found.st_mode & OTHERS_MAY_WRITE and not found.st_mode & stat.S_ISVTX
        if is_open and not is_link:
            return one
    return None


def _is_inside(directory: Path, store: Path) -> bool:
    """True if ``directory`` is the store, or would be made below it."""
    real = Path(os.path.realpath(directory))
    return any(_is_same(one, store) for one in (real, *real.parents))


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
