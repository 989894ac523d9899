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


def rename(store: Store, old: str, new: str) -> bool:
    """Make what is recorded of ``old`` that of ``new``; False as with forget.

    What is there of an earlier client of the new name goes, but not when this is done
    again.
    """
    if not path(store).exists():
        return True
    with opened(store) as ledger:
        if any(_knows(ledger, table, old) for table in TABLES):
            _forget(ledger, new)
            for table in TABLES:
                ledger.execute(
                    f"UPDATE {table} SET host = ? WHERE host = ?",  # noqa: S608 # ours
                    (new, old),
                )
        return True
    return False


def _knows(ledger: sqlite3.Connection, table: str, client: str) -> bool:
    query = f"SELECT 1 FROM {table} WHERE host = ? LIMIT 1"  # noqa: S608 # ours
    return ledger.execute(query, (client,)).fetchone() is not None


def _forget(ledger: sqlite3.Connection, client: str) -> None:
    for table in TABLES:
        ledger.execute(f"DELETE FROM {table} WHERE host = ?", (client,))  # noqa: S608 # ours
