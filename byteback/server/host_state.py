"""What the server remembers of a client's last transfer: one word in a file.

It is kept apart from the ledger, which may be lost at any time, because it decides
whether ``current`` may become a snapshot. On btrfs a commit covers the whole volume,
so that after a crash the word is never newer than the tree that it speaks of.
"""

from __future__ import annotations

import enum
import os
from pathlib import Path

from byteback.errors import BusyError
from byteback.server.store import Store


class Transfer(enum.Enum):
    """How the last transfer into ``current`` ended."""

    UNKNOWN = "unknown"  # adopted from the old tool, or the file was lost
    RUNNING = "running"  # or cut off by a crash, when nobody holds the lock
    FAILED = "failed"
    PARTIAL = "partial"  # finished, but the client could not read some files
    WHOLE = "whole"

    @property
    def is_finished(self) -> bool:
        """Known to have come to its end."""
        return self in (Transfer.WHOLE, Transfer.PARTIAL)

    @property
    def is_cut_off(self) -> bool:
        """Known not to have come to its end."""
        return self in (Transfer.RUNNING, Transfer.FAILED)


def read(store: Store, host: str) -> Transfer:
    """The state of ``host``; UNKNOWN if there is none, or none that can be read."""
    try:
        return Transfer(_path(store, host).read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        return Transfer.UNKNOWN


def current_is_whole(store: Store, host: str) -> bool:
    """Whether ``current`` holds a finished backup, the newest copy of all.

    Of a tree that the old tool left nothing is known: it counts as whole only if there
    is no snapshot to be preferred.
    """
    state = read(store, host)
    if state is Transfer.UNKNOWN:
        return not store.snapshots(host)
    return state.is_finished


def write(store: Store, host: str, state: Transfer) -> None:
    """Record ``state``; the caller holds the host's lock.

    Raises BusyError on a full disc, so that no transfer starts that could not be
    told from a finished one later.
    """
    path = _path(store, host)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, mode=0o600)
        try:
            os.write(fd, state.value.encode("ascii") + b"\n")
        finally:
            os.close(fd)
    except OSError as error:
        raise BusyError(
            f"the server cannot record this transfer: {error.strerror}",
            hint="its disc may be full; it makes room by itself, try again later",
        ) from None


def _path(store: Store, host: str) -> Path:
    return store.lock_path(host).with_suffix(".state")
