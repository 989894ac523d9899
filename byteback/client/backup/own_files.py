"""A look at this machine's own files, for what a first backup does not tell."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from byteback.model.rsync_names import plain_name

_SENT = re.compile(r"\d+ (\S{11}) (.+)", re.DOTALL)


class Sent(NamedTuple):
    """The form in which rsync prints a name that it sends."""

    flags: str  # rsync(1), --itemize-changes
    name: str  # below /; a directory's ends in a slash


def parse_sent(line: str) -> Sent | None:
    """Read a line of the format push.SENT_FORMAT; None for any other."""
    match = _SENT.fullmatch(line)
    if match is None:
        return None
    # rsync prints the slash of its source "/" in front.
    return Sent(match[1], plain_name(match[2]).lstrip("/"))


def attributes(path: str) -> list[str]:
    """The names of a file's extended attributes; none of one that is gone."""
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError:
        return []


def walk(
    sources: Iterable[str], foreign: Collection[str]
) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Each directory at and below ``sources``, by its path and with what is in it.

    Links are not followed, and mount points in ``foreign`` are left out: what is
    mounted there may be slow, endless or another user's, or never answer. What cannot
    be read or goes away meanwhile is passed over, and so are sources that are no
    directories.
    """
    waiting = [path for path in sources if path not in foreign]
    while waiting:
        directory = waiting.pop()
        with contextlib.suppress(OSError):
            with os.scandir(directory) as entries:
                found = [entry for entry in entries if entry.path not in foreign]
            yield directory, found
            waiting += [
                entry.path for entry in found if entry.is_dir(follow_symlinks=False)
            ]
