"""The small files that the server keeps about each client, apart from its trees."""

from __future__ import annotations

import contextlib
from pathlib import Path

from byteback.server.search import indexing
from byteback.server.store.layout import Store, lock_name

# All endings of files in .byteback/hosts but .lock and .rekeyed: a lock is never
# removed, and what tells of an old key protects the next client of the name.
ENDINGS = (
    *(".state", ".machine", ".other-machine", ".damaged", ".separated", ".log"),
    *(
        ".journal",
        ".journal-new",
        ".retired",
        ".sources",
        ".replica",
        ".moving",
        *indexing.ENDINGS,
    ),
)


def forget(store: Store, client: str) -> None:
    """Remove all notes about a client. Raises OSError."""
    for path in _paths(store, client):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def rename(store: Store, old: str, new: str) -> None:
    """Make the notes about one client those about another one. Raises OSError."""
    for path, target in zip(_paths(store, old), _paths(store, new), strict=True):
        with contextlib.suppress(FileNotFoundError):
            path.rename(target)


def _paths(store: Store, client: str) -> list[Path]:
    directory = store.lock_path(client).parent
    return [directory / f"{lock_name(client)}{ending}" for ending in ENDINGS]
