"""What the server remembers of a client's last transfer: one word in a file.

It is kept apart from the ledger, which may be lost at any time, because it decides
whether ``current`` may become a snapshot. Beside the word stands which start of the
machine it was written in: a transfer that still "runs" since an earlier one was cut
off by a power cut or a crash, which may have cost data that rsync had written (D14).
After a whole transfer follows what tells this tree from any other one (tree_token.py).
"""

from __future__ import annotations

import contextlib
import enum
import os
from pathlib import Path

from byteback.errors import BusyError
from byteback.server.store.layout import Store

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
RECORD_LENGTH = 256  # bytes


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
    """The state of ``host``; UNKNOWN if there is none.

    What cannot be understood counts as FAILED: it was damaged while it was written.
    """
    return _read(store, host)[0]


def crash_time(store: Store, host: str) -> float | None:
    """When the last transfer began if the machine went down in it; None if not.

    In seconds since 1970, by the machine's clock of then.
    """
    state, boot = _read(store, host)
    if state is not Transfer.RUNNING or boot == _boot_id():
        return None
    return _path(store, host).stat().st_mtime


def finished_since(store: Store, host: str) -> int | None:
    """When the last transfer came to its end, in nanoseconds by the server's clock.

    None if there is one under way, or was one that did not. While this number stays,
    nobody has transferred anything.
    """
    with contextlib.suppress(FileNotFoundError):
        time = _path(store, host).stat().st_mtime_ns
        if read(store, host).is_finished:
            return time
    return None


def current_is_whole(store: Store, host: str) -> bool:
    """Whether ``current`` holds a finished backup, the newest copy of all.

    Of a tree that the old tool left nothing is known: it counts as whole only if there
    is no snapshot to be preferred.
    """
    state = read(store, host)
    if state is Transfer.UNKNOWN:
        return not store.snapshots(host)
    return state.is_finished


def mark(store: Store, host: str) -> tuple[str, ...]:
    """The words that were recorded with the end of a whole transfer; none otherwise."""
    words = _words(store, host)
    return tuple(words[2:]) if words[:1] == [Transfer.WHOLE.value] else ()


def write(store: Store, host: str, state: Transfer, mark: tuple[str, ...] = ()) -> None:
    """Record ``state``, to survive a power cut; the caller holds the host's lock.

    ``mark`` are words to go with it.

    Raises BusyError on a full disc, so that no transfer starts that could not be
    told from a finished one later.
    """
    # Always the same length, and never cut to nothing first: so there is no moment
    # in which a crash leaves an empty file behind.
    words = " ".join([state.value, _boot_id(), *mark])
    record = words.ljust(RECORD_LENGTH - 1) + "\n"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(_path(store, host), flags, mode=0o600)
        try:
            os.pwrite(fd, record.encode("ascii"), 0)
            os.ftruncate(fd, RECORD_LENGTH)
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise BusyError(
            f"the server cannot record this transfer: {error.strerror}",
            hint="its disc may be full; it makes room by itself, try again later",
        ) from None


def _read(store: Store, host: str) -> tuple[Transfer, str]:
    """The state and the machine's start that it was written in."""
    try:
        words = _path(store, host).read_text(encoding="ascii").split()
        return Transfer(words[0]), words[1] if len(words) > 1 else ""
    except FileNotFoundError:
        return Transfer.UNKNOWN, ""
    except (OSError, ValueError, IndexError):
        return Transfer.FAILED, ""


def _words(store: Store, host: str) -> list[str]:
    try:
        return _path(store, host).read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return []


def _boot_id() -> str:
    """A random name that this start of the machine has (random(4))."""
    return BOOT_ID.read_text(encoding="ascii").strip()[:36]


def _path(store: Store, host: str) -> Path:
    return store.lock_path(host).with_suffix(".state")
