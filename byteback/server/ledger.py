"""The ledger: every transfer and snapshot, for people, alarms and pruning to read.

It is a record, never a condition: nothing waits for it for long, and no backup or
prune fails because it is lost, locked, damaged or because the disc is full.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from byteback.errors import escape
from byteback.log import audit
from byteback.model.growth import Push, Taken
from byteback.server.store import Store

LOCK_WAIT_S = 2.0
KEPT_ROWS = 2000  # for each host, however often it comes
TRIM_EVERY = 20  # transfers
KEPT_RECENT = 200  # of those, whatever they say
LOOK_BACK_DAYS = 200  # how much of it growth is judged by
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
    bytes_written INTEGER,      -- written to the store, measured here
    data_taken INTEGER,         -- how much less room there was afterwards
    metadata_taken INTEGER,
    names INTEGER,              -- in a finished tree
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
"""

# Of too many transfers those go that took least: a client must not be able to push
# its own large ones out of sight by coming a thousand times for nothing.
_TRIM = """
DELETE FROM transfer WHERE host = :host
    AND id NOT IN (SELECT id FROM transfer WHERE host = :host
        ORDER BY id DESC LIMIT :recent)
    AND id NOT IN (SELECT id FROM transfer WHERE host = :host
        ORDER BY COALESCE(data_taken, 0) + COALESCE(metadata_taken, 0) DESC, id DESC
        LIMIT :rows - :recent)
"""

_PUSHES = """
SELECT host, started, data_taken, metadata_taken, names, stopped FROM transfer
WHERE kind = 'push' AND (:host IS NULL OR host = :host)
    AND started BETWEEN :since AND :until
"""
_SNAPSHOTS = """
SELECT host, made FROM snapshot
WHERE (:host IS NULL OR host = :host) AND made BETWEEN :since AND :until
"""
_APPROVALS = """
SELECT host, time FROM approval
WHERE (:host IS NULL OR host = :host) AND time BETWEEN :since AND :until
"""


@dataclass(frozen=True)
class TransferEnd:
    """What is known of a transfer once it has ended."""

    result: str
    exit_status: int
    bytes_received: int | None
    bytes_written: int | None


@dataclass(frozen=True)
class HostRecord:
    """What growth is judged by."""

    pushes: list[Push] = field(default_factory=list)
    snapshots: list[float] = field(default_factory=list)  # seconds since 1970
    approvals: list[float] = field(default_factory=list)


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
        if cursor.lastrowid is not None and cursor.lastrowid % TRIM_EVERY == 0:
            limits = {"host": host, "recent": KEPT_RECENT, "rows": KEPT_ROWS}
            ledger.execute(_TRIM, limits)
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


def note_taken(
    store: Store,
    number: int | None,
    taken: Taken,
    *,
    names: int | None = None,
    stopped: bool = False,
) -> None:
    """Record how much room a transfer has taken, while it runs or afterwards."""
    with _opened(store) as ledger:
        ledger.execute(
            "UPDATE transfer SET data_taken = ?, metadata_taken = ?, names = ?,"
            " stopped = MAX(stopped, ?) WHERE id = ?",
            (taken.data, taken.metadata, names, stopped, number),
        )


def approve(store: Store, host: str) -> bool:
    """Record that somebody has looked at a host's backups; False if that failed."""
    with _opened(store) as ledger:
        ledger.execute(
            "INSERT INTO approval (host, time) VALUES (?, ?)", (host, time.time())
        )
        ledger.execute(
            "DELETE FROM approval WHERE time < ?", (time.time() - KEPT_DAYS * _DAY_S,)
        )
        return True
    return False


def forget_taken(store: Store, host: str, since: float) -> None:
    """Record that what a host's pushes have taken since then was given back."""
    with _opened(store) as ledger:
        ledger.execute(
            "UPDATE transfer SET data_taken = 0, metadata_taken = 0, names = NULL,"
            " stopped = 0 WHERE host = ? AND started >= ?",
            (host, since),
        )


def host_records(store: Store, host: str | None = None) -> dict[str, HostRecord]:
    """The recent pushes, snapshots and approvals of all hosts, or of one.

    Nothing is written; empty where there is no ledger, or none that can be read.
    """
    found: dict[str, HostRecord] = {}
    if not path(store).exists():
        return found
    # Nothing of the future either: a clock that was wrong must not mix up the order.
    now = time.time()
    values = {"host": host, "since": now - LOOK_BACK_DAYS * _DAY_S, "until": now + 1}
    with _opened(store) as ledger:
        for name, started, data, metadata, names, stopped in ledger.execute(
            _PUSHES, values
        ):
            push = Push(started, Taken(data or 0, metadata or 0), names, bool(stopped))
            found.setdefault(name, HostRecord()).pushes.append(push)
        for name, made in ledger.execute(_SNAPSHOTS, values):
            found.setdefault(name, HostRecord()).snapshots.append(made)
        for name, moment in ledger.execute(_APPROVALS, values):
            found.setdefault(name, HostRecord()).approvals.append(moment)
    return found


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


def forget_snapshot(store: Store, host: str, name: str) -> None:
    """Take back that a snapshot was made, for it was not."""
    with _opened(store) as ledger:
        ledger.execute("DELETE FROM snapshot WHERE host = ? AND name = ?", (host, name))


@contextlib.contextmanager
def _opened(store: Store) -> Iterator[sqlite3.Connection]:
    """The ledger for one transaction. Whatever goes wrong is logged and swallowed.

    One that cannot be opened is a closed one here: its first statement ends the block.
    """
    place = path(store)
    try:
        ledger = _connect(place)
    except (sqlite3.Error, OSError) as error:
        _give_up(place, error)
        with contextlib.suppress(sqlite3.ProgrammingError):
            yield _closed_ledger()
        return
    try:
        with contextlib.closing(ledger), ledger:
            yield ledger
    except (sqlite3.Error, OSError) as error:
        _give_up(place, error)


def _connect(place: Path) -> sqlite3.Connection:
    ledger = sqlite3.connect(place, timeout=LOCK_WAIT_S)
    try:
        ledger.executescript(_SCHEMA)
    except BaseException:
        ledger.close()
        raise
    return ledger


def _closed_ledger() -> sqlite3.Connection:
    ledger = sqlite3.connect(":memory:")
    ledger.close()
    return ledger


def _give_up(place: Path, error: Exception) -> None:
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
