"""The ledger: every transfer and snapshot, for people, alarms and pruning to read.

It is a record, never a condition: nothing waits for it for long, and no backup or
prune fails because it is lost, locked, damaged or because the disc is full.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from byteback.errors import escape
from byteback.log import audit
from byteback.server.store import Store

LOCK_WAIT_S = 2.0
KEPT_DAYS = 800  # more than two years, so that a year can be compared with the last
_DAY_S = 86400

_SCHEMA = """
CREATE TABLE IF NOT EXISTS transfer (
    id INTEGER PRIMARY KEY,
    host TEXT NOT NULL,
    address TEXT NOT NULL,
    kind TEXT NOT NULL,         -- push or pull
    started REAL NOT NULL,      -- seconds since 1970
    ended REAL,                 -- NULL: running, or cut off by a crash
    result TEXT,                -- whole, partial, failed
    exit_status INTEGER,        -- rsync's on this side, or minus a signal
    bytes_received INTEGER,     -- read by rsync, from the wire and for comparing
    bytes_written INTEGER       -- written to the store, measured here
);
CREATE INDEX IF NOT EXISTS transfer_host ON transfer (host, started);
CREATE TABLE IF NOT EXISTS snapshot (
    id INTEGER PRIMARY KEY,
    host TEXT NOT NULL,
    name TEXT NOT NULL,
    made REAL NOT NULL,
    incomplete INTEGER NOT NULL,  -- 1: the client could not read some files
    files INTEGER               -- as the client said, not measured
);
CREATE INDEX IF NOT EXISTS snapshot_host ON snapshot (host, made);
"""


@dataclass(frozen=True)
class TransferEnd:
    """What is known of a transfer once it has ended."""

    result: str
    exit_status: int
    bytes_received: int | None
    bytes_written: int | None


def path(store: Store) -> Path:
    """Where the ledger is."""
    return store.state / "ledger.sqlite"


def begin_transfer(store: Store, host: str, address: str, kind: str) -> int | None:
    """Record the start of a transfer; its number, or None if that was impossible."""
    with _opened(store) as ledger:
        cursor = ledger.execute(
            "INSERT INTO transfer (host, address, kind, started) VALUES (?, ?, ?, ?)",
            (host, address, kind, time.time()),
        )
        ledger.execute(
            "DELETE FROM transfer WHERE started < ?",
            (time.time() - KEPT_DAYS * _DAY_S,),
        )
        return cursor.lastrowid
    return None


def end_transfer(store: Store, number: int | None, end: TransferEnd) -> None:
    """Record how the transfer ended."""
    with _opened(store) as ledger:
        ledger.execute(
            "UPDATE transfer SET ended = ?, result = ?, exit_status = ?,"
            " bytes_received = ?, bytes_written = ? WHERE id = ?",
            (
                time.time(),
                end.result,
                end.exit_status,
                end.bytes_received,
                end.bytes_written,
                number,
            ),
        )


def add_snapshot(
    store: Store, host: str, name: str, *, incomplete: bool, files: int | None
) -> None:
    """Record a snapshot that was made."""
    with _opened(store) as ledger:
        ledger.execute(
            "INSERT INTO snapshot (host, name, made, incomplete, files)"
            " VALUES (?, ?, ?, ?, ?)",
            (host, name, time.time(), incomplete, files),
        )
        ledger.execute(
            "DELETE FROM snapshot WHERE made < ?", (time.time() - KEPT_DAYS * _DAY_S,)
        )


def incomplete_snapshots(store: Store, host: str) -> frozenset[str]:
    """Names of the host's snapshots that are known to lack some files."""
    with _opened(store) as ledger:
        rows = ledger.execute(
            "SELECT name FROM snapshot WHERE host = ? AND incomplete", (host,)
        )
        return frozenset(str(row[0]) for row in rows)
    return frozenset()


@contextlib.contextmanager
def _opened(store: Store) -> Iterator[sqlite3.Connection]:
    """The ledger for one transaction. Whatever goes wrong is logged and swallowed."""
    place = path(store)
    try:
        with contextlib.closing(sqlite3.connect(place, timeout=LOCK_WAIT_S)) as ledger:
            ledger.executescript(_SCHEMA)
            with ledger:
                yield ledger
    except sqlite3.OperationalError as error:  # locked, full, read-only: may pass
        _complain("the ledger could not be used", error)
    except sqlite3.DatabaseError as error:
        _complain("the ledger is damaged and was set aside", error)
        with contextlib.suppress(OSError):
            place.rename(place.with_suffix(f".damaged-{int(time.time())}"))
    except OSError as error:
        _complain("the ledger could not be used", error)


def _complain(what: str, error: Exception) -> None:
    audit("WARNING", what=what, reason=escape(str(error)))
