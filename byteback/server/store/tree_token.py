"""A random name for what ``current`` holds, new with every change of it (D40).

A client that remembers it knows that its tree has not changed meanwhile, and sends
only what has changed on its own side. It is not trusted to be told of changes: with the
name it is kept which subvolume it was and what btrfs counted as its last change. So a
tree that was put back, made anew or written to by hand has no name any more.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from pathlib import Path
from typing import NamedTuple

from byteback import __version__
from byteback.server.store import state
from byteback.server.store.layout import Store
from byteback.system.btrfs import subvolume

LENGTH = 32  # characters of a token
DIGITS = frozenset("0123456789abcdef")
PLACES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


class TreeName(NamedTuple):
    """The record of one whole transfer."""

    token: str
    push: str  # by which the client knows its own transfer; "-" for none
    uuid: str
    changed: str


def make(store: Store, client: str, push: str | None) -> tuple[str, ...]:
    """The mark (see state.write) of ``current`` as it is now, on disc and in whole.

    ``push`` is the client's own number of its transfer. Nothing if btrfs cannot tell.
    """
    found = _identity(store, client)
    if found is None:
        return ()
    return TreeName(os.urandom(LENGTH // 2).hex(), push or "-", *found)


def token(store: Store, client: str, *, push: str | None = None) -> str:
    """The name of what ``current`` holds; empty if it has none.

    With ``push`` only if that was the last transfer. Another rsync or byteback on this
    machine changes the name: they may do something else with the same files.
    """
    name = _read(store, client)
    if name is None or (push is not None and push != name.push):
        return ""
    return _by_programs(name.token)


def is_base(store: Store, client: str, base: str) -> bool:
    """True if ``base`` names what ``current`` holds, or the transfer that made it."""
    name = _read(store, client)
    if name is None or len(base) != len(name.token):
        return False
    return base in (token(store, client), name.push)


def _by_programs(token: str) -> str:
    """``token``, changed by which programs are at work here.

    A checksum does for that: the token is no secret from who holds it, and hashlib
    takes as long to load as all else that is done for a token.
    """
    programs = zlib.crc32(f"{__version__}\0{_rsync()}".encode())
    head, tail = token[:-8], token[-8:]
    return f"{head}{int(tail, 16) ^ programs:08x}"


def _read(store: Store, client: str) -> TreeName | None:
    words = state.mark(store, client)
    if len(words) != len(TreeName._fields):
        return None
    name = TreeName(*words)
    if len(name.token) != LENGTH or set(name.token) - DIGITS:
        return None
    return name if _identity(store, client) == (name.uuid, name.changed) else None


def _identity(store: Store, client: str) -> tuple[str, str] | None:
    found = subvolume.read_at(store.current(client))
    return None if found is None else (found.uuid.hex(), str(found.changed))


def _rsync() -> str:
    """A text that changes with this machine's rsync."""
    for directory in PLACES:
        with contextlib.suppress(OSError):
            found = Path(directory, "rsync").stat()
            return f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_ctime_ns}"
    return ""
