"""The file that the ledger is kept in: opened for one transaction, never in the way."""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from byteback.errors import escape
from byteback.log import audit
from byteback.server.store.layout import Store
from byteback.system import files

# On a busy disc a transaction takes a second, and a client can see to it that there are
# many: what growth is judged by must get its turn, or nothing could be blamed on it.
LOCK_WAIT_S = 60.0
SHORT_WAIT_S = 2.0

# Raised with each change below. A later version only adds tables and columns, so that
# every version can use the ledger of every other one.
VERSION = 5
SCHEMA = """
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
    bytes_written INTEGER,      -- written to the store, measured here
    data_taken INTEGER,         -- how much less room there was afterwards
    metadata_taken INTEGER,
    names INTEGER,              -- in the snapshot of it; -1: not to be counted
    stopped INTEGER NOT NULL DEFAULT 0  -- 1: by the server, for want of room
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
CREATE TABLE IF NOT EXISTS approval (  -- of a backup that was suddenly different
    id INTEGER PRIMARY KEY,
    host TEXT NOT NULL,
    time REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS deletion (  -- of a snapshot, by pruning
    id INTEGER PRIMARY KEY,
    host TEXT NOT NULL,
    name TEXT NOT NULL,
    time REAL NOT NULL,
    expected INTEGER,           -- bytes that were to come back; NULL: unknown
    freed INTEGER               -- bytes that did; NULL: not measured
);
CREATE INDEX IF NOT EXISTS deletion_host ON deletion (host, time);
CREATE TABLE IF NOT EXISTS baseline (  -- what backups took before this ledger
    host TEXT PRIMARY KEY,
    measured REAL NOT NULL,
    data_taken INTEGER,         -- NULL: there was no need to measure it
    metadata_taken INTEGER
);
CREATE TABLE IF NOT EXISTS free_space (  -- one reading an hour, by pruning
    time REAL PRIMARY KEY,
    free_bytes INTEGER NOT NULL,
    total_bytes INTEGER NOT NULL
);
"""
# Table, column and type of what tables of SCHEMA have gained since version 1.
ADDED_COLUMNS = (
    ("snapshot", "size", "INTEGER"),  # bytes of all files, as the client said
    ("transfer", "is_full", "INTEGER"),  # 1: every file was compared
    # Changes that a full comparison found and the client's record had not told; 0: none
    # by an administrator's own comparison.
    ("transfer", "missed", "INTEGER"),
    # Seconds by which the client's clock was ahead of the server's, as the client said.
    ("transfer", "clock_ahead", "INTEGER"),
    ("snapshot", "sources", "TEXT"),  # as wire/coverage.py writes them
)
# A row costs a look at a page of its own, for those of one client lie far apart. What
# is asked of all clients' rows, or is told by few of them, is read off an index alone.
ADDED_INDEXES = (
    """CREATE INDEX IF NOT EXISTS transfer_taken ON transfer
    (host, started, data_taken, metadata_taken, stopped, names) WHERE kind = 'push'""",
    """CREATE INDEX IF NOT EXISTS snapshot_size ON snapshot (host, made, size)
    WHERE size IS NOT NULL""",
    """CREATE INDEX IF NOT EXISTS transfer_missed ON transfer (host, started)
    WHERE missed IS NOT NULL""",
    """CREATE INDEX IF NOT EXISTS transfer_clock ON transfer (host, started)
    WHERE clock_ahead IS NOT NULL""",
)


def path(store: Store) -> Path:
    """Where the ledger is."""
    return store.state / "ledger.sqlite"


class _Patience:
    left_s = math.inf


_patience = _Patience()


@contextlib.contextmanager
def limited_patience(wait_s: float = SHORT_WAIT_S) -> Iterator[None]:
    """All that is done inside waits so long in vain for the ledger, taken together."""
    before, _patience.left_s = _patience.left_s, wait_s
    try:
        yield
    finally:
        _patience.left_s = before


@contextlib.contextmanager
def opened(
    store: Store, *, short_timeout: bool = False
) -> Iterator[sqlite3.Connection]:
    """The ledger for one transaction. Whatever goes wrong is logged and swallowed.

    With ``short_timeout`` it gives up soon if others have the ledger. A ledger that
    cannot be opened is a closed one here: its first statement ends the block.
    """
    place, began = path(store), time.monotonic()
    wait_s = min(SHORT_WAIT_S if short_timeout else LOCK_WAIT_S, _patience.left_s)
    try:
        ledger = _connect(place, wait_s)
    except (sqlite3.Error, OSError) as error:
        _give_up(place, error, began)
        with contextlib.suppress(sqlite3.ProgrammingError):
            yield _closed()
        return
    try:
        with contextlib.closing(ledger), ledger:
            yield ledger
    except (sqlite3.Error, OSError) as error:
        _give_up(place, error, began)


def _connect(place: Path, wait_s: float) -> sqlite3.Connection:
    with contextlib.suppress(FileNotFoundError):
        os.close(files.open_regular(place))  # SQLite would wait for a fifo
    ledger = sqlite3.connect(place, timeout=wait_s)
    try:
        _bring_up_to_date(ledger)
    except BaseException:
        ledger.close()
        raise
    return ledger


def _bring_up_to_date(ledger: sqlite3.Connection) -> None:
    """Add what an older version's ledger, or a new one, lacks.

    On a full disc an older ledger stays as it is: what it has can still be read.
    """
    if _number(ledger, "PRAGMA user_version") >= VERSION:
        return
    try:
        with ledger:
            ledger.execute("BEGIN IMMEDIATE")
            for statement in SCHEMA.split(";\n"):
                ledger.execute(statement)
            for table, column, kind in ADDED_COLUMNS:
                known = ledger.execute(f"PRAGMA table_info({table})")
                if column not in {str(row[1]) for row in known}:
                    ledger.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
            for statement in ADDED_INDEXES:
                ledger.execute(statement)
            ledger.execute(f"PRAGMA user_version = {VERSION}")
    except sqlite3.OperationalError:
        query = "SELECT COUNT(*) FROM sqlite_master WHERE name = 'transfer'"
        if not _number(ledger, query):
            raise


def _number(ledger: sqlite3.Connection, query: str) -> int:
    (number,) = ledger.execute(query).fetchone()
    return int(number)


def _closed() -> sqlite3.Connection:
    ledger = sqlite3.connect(":memory:")
    ledger.close()
    return ledger


def _give_up(place: Path, error: Exception, began: float) -> None:
    _patience.left_s = max(0.0, _patience.left_s - (time.monotonic() - began))
    # Locked, full, read-only: those may pass. Any other DatabaseError is damage.
    if isinstance(error, sqlite3.OperationalError | OSError):
        _complain("the ledger could not be used", error)
        return
    _complain("the ledger is damaged and was set aside", error)
    with contextlib.suppress(OSError):
        # One is enough to look at; they must not pile up.
        place.replace(place.with_suffix(".damaged"))
        place.with_name(f"{place.name}-journal").unlink(missing_ok=True)


def _complain(what: str, error: Exception) -> None:
    audit("WARNING", what=what, reason=escape(str(error)))
