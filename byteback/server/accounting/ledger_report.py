"""Reads the ledger for byteback-status: the last backups of each client, as values.

Nothing here waits for long, and a ledger that is lost, locked, damaged or of another
version gives what can be had of it: at worst nothing.
"""

from __future__ import annotations

import bisect
import sqlite3
import time

from byteback.model.status import Backup, FreeReading, Result
from byteback.server.accounting.ledger import CLOCK_AHEAD
from byteback.server.accounting.ledger_file import opened, path
from byteback.server.store.layout import Store

# started, ended, result, received, written, taken, is_full
_Row = tuple[float, float | None, str | None, int, int, int, int | None]
RECENT = 15  # transfers of each client: ten intervals, and some that failed

_TRANSFERS = """
SELECT started, ended, result, bytes_received, bytes_written,
    data_taken + metadata_taken, is_full
FROM transfer WHERE host = ? AND kind = 'push' AND started <= ?
ORDER BY started DESC LIMIT ?
"""
_SNAPSHOTS = """
SELECT made, name, incomplete, files, size FROM snapshot
WHERE host = ? AND made >= ? ORDER BY made
"""
_MISSED = """
SELECT missed FROM transfer
WHERE host = ? AND missed IS NOT NULL ORDER BY started DESC LIMIT 1
"""
# Of older versions, on a disc that was too full for new columns.
_OLD_TRANSFERS = _TRANSFERS.replace("is_full", "NULL")
_OLD_SNAPSHOTS = _SNAPSHOTS.replace("files, size", "files, NULL")


def recent_backups(
    store: Store, clients: list[str], number: int = RECENT
) -> dict[str, tuple[Backup, ...]]:
    """The last ``number`` transfers of each client, oldest first."""
    found: dict[str, tuple[Backup, ...]] = {}
    if not path(store).exists():
        return found
    until = time.time() + 1  # a clock that was wrong must not hide what came later
    with opened(store, short_timeout=True) as ledger:
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
    if path(store).exists():
        with opened(store, short_timeout=True) as ledger:
            (started,) = ledger.execute("SELECT MIN(started) FROM transfer").fetchone()
            return None if started is None else float(started)
    return None


def failed_records(store: Store, clients: list[str]) -> frozenset[str]:
    """Those clients whose record has missed changes, by their last comparison."""
    found: set[str] = set()
    if path(store).exists():
        with opened(store, short_timeout=True) as ledger:
            for client in clients:
                row = ledger.execute(_MISSED, (client,)).fetchone()
                if row is not None and row[0]:
                    found.add(client)
    return frozenset(found)


def clocks_ahead(store: Store, clients: list[str]) -> dict[str, float]:
    """Seconds by which clients' clocks were ahead when they last told a difference."""
    found: dict[str, float] = {}
    if path(store).exists():
        with opened(store, short_timeout=True) as ledger:
            for client in clients:
                row = ledger.execute(CLOCK_AHEAD, (client,)).fetchone()
                if row is not None:
                    found[client] = float(row[0])
    return found


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
) -> list[tuple[float, str, int, int | None, int | None]]:
    try:
        return ledger.execute(_SNAPSHOTS, (client, since)).fetchall()
    except sqlite3.OperationalError:
        return ledger.execute(_OLD_SNAPSHOTS, (client, since)).fetchall()


def _join(
    rows: list[_Row],
    snapshots: list[tuple[float, str, int, int | None, int | None]],
) -> tuple[Backup, ...]:
    """Give each transfer the snapshot that was made before the next transfer began."""
    starts = [row[0] for row in rows]
    snapshot_of = {bisect.bisect_right(starts, made[0]) - 1: made for made in snapshots}
    backups = []
    for number, row in enumerate(rows):
        started, ended, result, received, written, taken, is_full = row
        _, name, incomplete, files, _ = snapshot_of.get(
            number, (0, None, 0, None, None)
        )
        is_last = number == len(rows) - 1
        known = _result(result, is_last=is_last)
        if known is Result.WHOLE and incomplete:
            known = Result.PARTIAL
        backups.append(
            Backup(
                *(started, ended, known, received, written, taken, files, name),
                is_full=None if is_full is None else bool(is_full),
            )
        )
    return tuple(backups)


def _result(word: str | None, *, is_last: bool) -> Result:
    """A transfer without an end is running, or was cut off by a crash."""
    if word is None:
        return Result.RUNNING if is_last else Result.FAILED
    return Result(word) if word in {"whole", "partial"} else Result.FAILED
