"""When work that must not stop was last done: the times of empty files.

They are read by byteback-status, and mean nothing to the work itself.
"""

from __future__ import annotations

import contextlib
import os

from byteback.server.store.layout import Store

PRUNED = "pruned"  # a run of pruning came to its end
SEALED = "sealed"  # the same of a run as root, which seals snapshots


def note(store: Store, mark: str) -> None:
    """Record that this was done now; a full disc may keep that from being recorded."""
    path = store.state / mark
    with contextlib.suppress(OSError):
        path.touch(mode=0o600)
        os.utime(path)


def read(store: Store, mark: str) -> float | None:
    """When it was last done, in seconds since 1970; None if that is not known."""
    try:
        return (store.state / mark).stat().st_mtime
    except OSError:
        return None
