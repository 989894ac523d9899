"""Tells why a request failed for want of room, and has room made at once.

Pruning makes room only where a snapshot may go. Where none may, the client hears that,
for then waiting does not help (D50).
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from datetime import UTC, datetime

from byteback.errors import BusyError, BytebackError, ToolError
from byteback.model import retention
from byteback.model.free_space import FreeSpace
from byteback.server.accounting import growth, ledger
from byteback.server.store import clock
from byteback.server.store.layout import Store
from byteback.system import process
from byteback.system.btrfs import commands
from byteback.wire.failures import Reason

PROBE_BYTES = 1 << 20
MAKING_ROOM = (
    "it deletes old snapshots now, to make room: try again in some minutes. What was "
    "sent is kept"
)
NOTHING_MAY_GO = (
    "it has no snapshot that it may delete: waiting does not help. Its administrator "
    "can enlarge the disc or drop something, see 'When nothing may be deleted' in "
    "byteback-prune(1). Here, --exclude and /etc/byteback/excludes leave out what is "
    "large"
)
CLOCK_HAS_JUMPED = (
    "it deletes nothing, because its clock has jumped: its administrator has to look, "
    "see byteback-prune(1)"
)


def check(store: Store) -> None:
    """Raise BusyError if the store's disc takes no more; told() has the rest."""
    number = _probe(store)
    if number is not None:
        raise BusyError(_sentence(number), reason=Reason.DISC_FULL)


def told(store: Store, error: BytebackError | OSError) -> BusyError:
    """``error``, of which shortage.is_meant_by is true, with what becomes of it.

    Starts a pruning run.
    """
    start_pruning()
    if isinstance(error, OSError):
        message = _sentence(error.errno)
    else:
        is_ours = error.reason == Reason.DISC_FULL
        message = error.message if is_ours else _sentence(errno.ENOSPC)
    hint = MAKING_ROOM
    with contextlib.suppress(OSError, BytebackError):
        free = commands.free_space(store.root)
        if free.percent < free.data_percent:
            message += " (it has no room for more names, owners and modes of files)"
        if clock.fault(store, time.time(), ledger.last_times(store)) is not None:
            hint = CLOCK_HAS_JUMPED
        elif not _has_old_snapshots(store, free):
            hint = NOTHING_MAY_GO
    return BusyError(message, hint, reason=Reason.DISC_FULL)


def _sentence(number: int | None) -> str:
    if number == errno.EDQUOT:
        return "the server's disc has reached a quota of btrfs"
    return "the server's disc is full"


def _has_old_snapshots(store: Store, free: FreeSpace) -> bool:
    """True if pruning may delete a snapshot, as far as their ages and clients tell."""
    now = datetime.now(UTC)
    snapshots = []
    for client in store.hosts():
        # A host's directory may be taken away while we look.
        with contextlib.suppress(OSError):
            snapshots += store.snapshots(client)
    kept = retention.protections(snapshots, now)
    old = [snapshot for snapshot in snapshots if snapshot not in kept]
    if not old:
        return False
    held = growth.held(old, growth.verdicts(store, free, now.timestamp()))
    return len(held) < len(old)


def start_pruning() -> None:
    """Start a pruning run of its own, which outlives this session.

    The client is not kept waiting: it comes back after a pause, and the run ends at
    once where nothing is to be done or another one is at it.
    """
    from byteback.system import host

    with contextlib.suppress(BytebackError, OSError):
        process.start(
            [host.program_path("byteback-prune"), "--prune"],
            stdout=process.NULL,
            stderr=process.NULL,
            new_session=True,
        )


def _probe(store: Store) -> int | None:
    """The error number of a write that found no room; None if it found some.

    The file has no name, so that nothing is left of it.
    """
    flags = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC
    try:
        fd = os.open(store.state, flags, 0o600)
        try:
            left = memoryview(os.urandom(PROBE_BYTES))
            while left:
                left = left[os.write(fd, left) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        with contextlib.suppress(ToolError):
            if commands.free_space(store.root).percent <= 0:
                return errno.ENOSPC  # of metadata, which so small a file still finds
    except OSError as error:
        return error.errno if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
    return None
