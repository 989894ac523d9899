"""Reads from the ledger what snapshots were made of, as their clients said."""

from __future__ import annotations

import contextlib

from byteback.errors import RefusedError
from byteback.server.accounting.ledger_file import opened, path
from byteback.server.store.layout import Store
from byteback.wire import coverage

_SOURCES = """
SELECT host, name, sources FROM snapshot
WHERE sources IS NOT NULL AND (:host IS NULL OR host = :host)
ORDER BY made
"""


def read(
    store: Store, client: str | None = None
) -> dict[tuple[str, str], tuple[str, ...]]:
    """What snapshots were made of, by client and name, as far as that is known."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    if not path(store).exists():
        return found
    with opened(store, short_timeout=True) as ledger:
        for owner, name, word in ledger.execute(_SOURCES, {"host": client}):
            with contextlib.suppress(RefusedError):
                found[owner, name] = coverage.parse_sources(str(word))
    return found
