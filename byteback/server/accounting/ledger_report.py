"""Reads the ledger for byteback-status: the last backups of each client, as values.

Nothing here waits for long, and a ledger that is lost, locked, damaged or of another
version gives what can be had of it: at worst nothing.
"""

from __future__ import annotations

import bisect
import sqlite3
import time
from typing import Any

from byteback.model.status import Backup, FreeReading, Result
from byteback.server.accounting.ledger_file import opened, path
from byteback.server.store.layout import Store

# started, ended, result, received, written, taken, is_full
_Row = tuple[float, float | None, str | None, int, int, int, int | None]
_ENDS: dict[str | None, Result] = {"whole": Result.WHOLE, "partial": Result.PARTIAL}
_NO_SNAPSHOT = (0.0, None, 0, None)
CACHE_KIB = 32 * 1024  # at most
RECENT = 15  # transfers of each client: ten intervals, and some that failed

_TRANSFERS = """
SELECT started, ended, result, bytes_received, bytes_written,
    data_taken + metadata_taken, is_full
FROM transfer WHERE host = ? AND kind = 'push' AND started <= ?
ORDER BY started DESC LIMIT ?
"""
_SNAPSHOTS = """
SELECT made, name, incomplete, files FROM snapshot
WHERE host = ? AND made >= ? ORDER BY made
"""
# The other columns are of the row with the greatest time (SQLite, "bare columns").
_MISSED = """
SELECT host, missed, MAX(started) FROM transfer
WHERE missed IS NOT NULL GROUP BY host
"""
_CLOCKS = """
SELECT host, clock_ahead, MAX(started) FROM transfer
WHERE clock_ahead IS NOT NULL GROUP BY host
"""
_FIRST = "SELECT started FROM transfer ORDER BY id LIMIT 1"
# Of older versions, on a disc that was too full for new columns.
_OLD_TRANSFERS = _TRANSFERS.replace("is_full", "NULL")


def recent_backups(
    store: Store, clients: list[str], number: int = RECENT
) -> dict[str, tuple[Backup, ...]]:
    """The last ``number`` transfers of each client, oldest first."""
    found: dict[str, tuple[Backup, ...]] = {}
    if not path(store).exists():
        return found
    until = time.time() + 1  # a clock that was wrong must not hide what came later
    with opened(store, short_timeout=True) as ledger:
        # A page holds rows of many clients: with SQLite's own 2 MB it is read again
        # for each of them.
        ledger.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        # One transaction: by itself each statement locks the file and looks for a
        # journal, which takes as long as what it asks.
        ledger.execute("BEGIN")
        for client in clients:
            rows = _transfer_rows(ledger, client, until, number)
            if rows:
                rows.reverse()
                found[client] = _join(rows, _snapshot_rows(ledger, client, rows[0][0]))
    return found


def free_readings(store: Store, since: float) -> list[FreeReading]:
    """Free space since then, oldest first; pruning takes one reading an hour."""
    if not path(store).exists():
        return []
    with opened(store, short_timeout=True) as ledger:
        query = "SELECT time, free_bytes, total_bytes FROM free_space WHERE time >= ?"
        rows = ledger.execute(f"{query} ORDER BY time", (since,))
        return [FreeReading(*row) for row in rows]
    return []


def first_transfer(store: Store) -> float | None:
    """When the first transfer began that the ledger knows."""
    rows = _all_rows(store, _FIRST)
    return float(rows[0][0]) if rows else None


def failed_records(store: Store) -> frozenset[str]:
    """The clients whose record has missed changes, by their last comparison."""
    return frozenset(
        str(client) for client, missed, _ in _all_rows(store, _MISSED) if missed
    )


def clocks_ahead(store: Store) -> dict[str, float]:
    """Seconds by which clients' clocks were ahead when they last told a difference."""
    rows = _all_rows(store, _CLOCKS)
    return {str(client): float(ahead_s) for client, ahead_s, _ in rows}


def _all_rows(store: Store, query: str) -> list[tuple[Any, ...]]:
    """All rows of a query; none where the ledger does not tell."""
    if path(store).exists():
        with opened(store, short_timeout=True) as ledger:
            return ledger.execute(query).fetchall()
    return []


def _transfer_rows(
    ledger: sqlite3.Connection, client: str, until: float, number: int
) -> list[_Row]:
    values = (client, until, number)
    try:
        return ledger.execute(_TRANSFERS, values).fetchall()
    except sqlite3.OperationalError:
        return ledger.execute(_OLD_TRANSFERS, values).fetchall()


def _snapshot_rows(
    ledger: sqlite3.Connection, client: str, since: float
) -> list[tuple[float, str, int, int | None]]:
    return ledger.execute(_SNAPSHOTS, (client, since)).fetchall()


def _join(
    rows: list[_Row],
    snapshots: list[tuple[float, str, int, int | None]],
) -> tuple[Backup, ...]:
    """Give each transfer the snapshot that was made before the next transfer began."""
    starts = [row[0] for row in rows]
    last = len(rows) - 1
    snapshot_of = {bisect.bisect_right(starts, made[0]) - 1: made for made in snapshots}
    backups = []
    for number, row in enumerate(rows):
        started, ended, result, received, written, taken, is_full = row
        _, name, incomplete, files = snapshot_of.get(number, _NO_SNAPSHOT)
        known = _ENDS.get(result) or _result(result, is_last=number == last)
        if known is Result.WHOLE and incomplete:
            known = Result.PARTIAL
        full = None if is_full is None else bool(is_full)
        backups.append(
            Backup(started, ended, known, received, written, taken, files, name, full)
        )
    return tuple(backups)


def _result(word: str | None, *, is_last: bool) -> Result:
    """The end of one that is not good.

    A transfer without an end is running, or was cut off by a crash.
    """
    return Result.RUNNING if word is None and is_last else Result.FAILED
