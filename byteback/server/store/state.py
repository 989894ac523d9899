"""The server's memory of a client's last transfer: one word in a file.

It is kept apart from the ledger, which may be lost at any time, because it decides
whether ``current`` may become a snapshot. Beside the word stands in which start of the
machine, and in which mount of the store, it was written. A transfer that still "runs"
since an earlier one was cut off, by a power cut, a crash or a failing disc, which may
have cost data that rsync had written (D14). After a whole transfer follows what tells
this tree from any other one (tree_token.py).
"""

from __future__ import annotations

import contextlib
import enum
import os
from pathlib import Path
from typing import NamedTuple

from byteback.server.store import shortage
from byteback.server.store.layout import Store
from byteback.system import files
from byteback.system.btrfs.identity import identify

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
BTRFS = Path("/sys/fs/btrfs")
RECORD_LENGTH = 256  # bytes
LOST = "lost"  # stands for a start that has ended


class Transfer(enum.Enum):
    """How the last transfer into ``current`` ended."""

    UNKNOWN = "unknown"  # adopted from the old tool, or the file was lost
    RUNNING = "running"  # or cut off by a crash, when no process holds the lock
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


def read(store: Store, client: str) -> Transfer:
    """The state of ``client``; UNKNOWN if there is none.

    What cannot be understood counts as FAILED: it was damaged while it was written.
    """
    return _read(store, client).state


def crash_time(store: Store, client: str) -> float | None:
    """When the last transfer began if some of what it wrote may be lost; None if not.

    That is where the machine went down in it, the store was mounted anew since, or
    note_lost was called. In seconds since 1970, by the machine's clock of then.
    """
    record = _read(store, client)
    if record.state is not Transfer.RUNNING or _is_same(record.start, _start(store)):
        return None
    return record.began or _path(store, client).stat().st_mtime


def note_lost(store: Store, client: str) -> None:
    """Record that a transfer under way wrote what did not reach the disc.

    The next push then compares what it wrote, as after a power cut (D14). Raises
    BusyError.
    """
    record = _read(store, client)
    if record.state is Transfer.RUNNING:
        began = record.began or _path(store, client).stat().st_mtime
        _write(store, client, f"{record.state.value} {LOST} {began:.0f}")


def finished_since(store: Store, client: str) -> int | None:
    """When the last transfer came to its end, in nanoseconds by the server's clock.

    None if there is one under way, or was one that did not. While this number stays,
    nothing has been transferred.
    """
    with contextlib.suppress(FileNotFoundError):
        time = _path(store, client).stat().st_mtime_ns
        if read(store, client).is_finished:
            return time
    return None


def current_is_whole(store: Store, client: str) -> bool:
    """True if ``current`` holds a finished backup, the newest copy of all.

    Of a tree that the old tool left nothing is known: it counts as whole only if there
    is no snapshot to be preferred.
    """
    state = read(store, client)
    if state is Transfer.UNKNOWN:
        return not store.snapshots(client)
    return state.is_finished


def mark(store: Store, client: str) -> tuple[str, ...]:
    """The words that were recorded with the end of a whole transfer; none otherwise."""
    record = _read(store, client)
    return record.further if record.state is Transfer.WHOLE else ()


def write(
    store: Store, client: str, state: Transfer, mark: tuple[str, ...] = ()
) -> None:
    """Record ``state``, to survive a power cut; the caller holds the host's lock.

    ``mark`` are words to go with it.

    Raises BusyError on a full disc, so that no transfer starts that could not be
    told from a finished one later.
    """
    _write(store, client, " ".join([state.value, _start(store), *mark]))


def _write(store: Store, client: str, words: str) -> None:
    # Always the same length, and never cut to nothing first: so there is no moment
    # in which a crash leaves an empty file behind.
    record = words.ljust(RECORD_LENGTH - 1) + "\n"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(_path(store, client), flags, mode=0o600)
        try:
            os.pwrite(fd, record.encode("ascii"), 0)
            os.ftruncate(fd, RECORD_LENGTH)
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        what = f"the server cannot record this transfer: {error.strerror}"
        raise shortage.failure(what, error) from None


class _Record(NamedTuple):
    state: Transfer
    start: str = ""  # see _start
    further: tuple[str, ...] = ()  # a mark, or since when what was written is lost

    @property
    def began(self) -> float | None:
        """When a transfer began of which something was lost, in seconds since 1970."""
        if self.start == LOST:
            with contextlib.suppress(ValueError, IndexError):
                return float(self.further[0])
        return None


def _read(store: Store, client: str) -> _Record:
    try:
        text = files.read_regular(_path(store, client), 2 * RECORD_LENGTH)
        words = text.decode("ascii").split()
        return _Record(Transfer(words[0]), "".join(words[1:2]), tuple(words[2:]))
    except FileNotFoundError:
        return _Record(Transfer.UNKNOWN)
    except (OSError, ValueError, IndexError):
        return _Record(Transfer.FAILED)


def _start(store: Store) -> str:
    """A name that this start of the machine (random(4)), and this mount, alone have.

    sysfs has a directory for each mounted btrfs, with a number of its own each time.
    """
    boot = BOOT_ID.read_text(encoding="ascii").strip()[:36]
    with contextlib.suppress(OSError):
        place = identify(store.root)
        if place is not None:
            return f"{boot}/{(BTRFS / place.filesystem).stat().st_ino}"
    return boot


def _is_same(one: str, other: str) -> bool:
    """True if two starts are one, as far as both tell."""
    boots, mounts = zip(one.partition("/")[::2], other.partition("/")[::2], strict=True)
    return boots[0] == boots[1] and (mounts[0] == mounts[1] or "" in mounts)


def _path(store: Store, client: str) -> Path:
    return store.lock_path(client).with_suffix(".state")
