"""When work that must not stop was last done, and why it could not do more.

They are read by byteback-status, and mean nothing to the work itself.
"""

from __future__ import annotations

import contextlib
import os
import time

from byteback.model.status import PruneFault
from byteback.server.store.layout import Store
from byteback.system import files

PRUNED = "pruned"  # a run of pruning came to its end
SEALED = "sealed"  # the same of a run as root, which seals snapshots
PRUNE_FAULT = "prune-fault"  # a PruneFault, in a file that is there while it lasts
MAX_WORD = 32  # bytes


# A run every few minutes that has nothing to do must not write to the disc each time.
# The alarm comes after an hour, so a time that is a little old does no harm.
FRESH_S = 1200


def note(store: Store, mark: str) -> None:
    """Record that this was done now; a full disc may keep that from being recorded."""
    path = store.state / mark
    age_s = time.time() - (read(store, mark) or 0.0)
    if 0 <= age_s < FRESH_S:
        return
    with contextlib.suppress(OSError):
        path.touch(mode=0o600)
        os.utime(path)


def note_fault(store: Store, fault: PruneFault | None) -> None:
    """Record why room stays short; the file's time is since when it is for that."""
    path = store.state / PRUNE_FAULT
    with contextlib.suppress(OSError):
        if fault is None:
            path.unlink(missing_ok=True)
        elif read_fault(store) is not fault:
            files.write_atomically(path, fault.encode("ascii"), mode=0o600)


def read_fault(store: Store) -> PruneFault | None:
    """Why room stays short, None for no such reason or one of a later version."""
    path = store.state / PRUNE_FAULT
    with contextlib.suppress(OSError, ValueError):
        return PruneFault(files.read_regular(path, MAX_WORD).decode("ascii"))
    return None


def read(store: Store, mark: str) -> float | None:
    """When it was last done, in seconds since 1970; None if that is not known."""
    try:
        return (store.state / mark).stat().st_mtime
    except OSError:
        return None
