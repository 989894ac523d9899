"""Changes of the ledger when a client goes, or gets another name."""

from __future__ import annotations

import sqlite3

from byteback.server.accounting.ledger_file import opened, path
from byteback.server.store.layout import Store

# Every table with a column "host".
TABLES = ("transfer", "snapshot", "approval", "deletion", "baseline")


def forget(store: Store, client: str) -> bool:
    """Delete all that is recorded of a client; False if that failed, which is logged.

    The ledger is a record, never a condition: no removal waits for it.
    """
    if not path(store).exists():
        return True
    with opened(store) as ledger:
        _forget(ledger, client)
        return True
    return False


def _forget(ledger: sqlite3.Connection, client: str) -> None:
    for table in TABLES:
        ledger.execute(f"DELETE FROM {table} WHERE host = ?", (client,))  # noqa: S608 # ours
