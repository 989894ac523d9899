"""The small files that the server keeps about each client, apart from its trees."""

from __future__ import annotations

import contextlib

from byteback.server.search import indexing
from byteback.server.store.layout import Store, lock_name

# All endings of files in .byteback/hosts but two: a lock is never removed, and what
# tells of an old key protects the next client of the name.
ENDINGS = (
    *(".state", ".machine", ".other-machine", ".damaged", ".separated", ".log"),
    *(".journal", ".journal-new", ".retired", *indexing.ENDINGS),
)
KEPT_ENDINGS = (".lock", ".rekeyed")


def forget(store: Store, client: str) -> None:
    """Remove all notes about a client. Raises OSError."""
    for ending in ENDINGS:
        path = store.lock_path(client).with_name(f"{lock_name(client)}{ending}")
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
