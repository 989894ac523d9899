"""The ledger: every transfer and snapshot, for people, alarms and pruning to read.

It is a record, never a condition: nothing waits for it for more than a minute, and no
backup or prune fails because it is lost, locked, damaged or because the disc is full.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from typing import TYPE_CHECKING, NamedTuple

from byteback.server.accounting.ledger_file import opened, path
from byteback.server.store.layout import Store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from byteback.model.growth import Push, Taken

KEPT_ROWS = 2000  # for each host, however often it comes
TRIM_EVERY = 20  # transfers
KEPT_RECENT = 200  # of those, whatever they say
RECENT_DAYS = 60  # more than growth judges: a push may have taken days
LOOK_BACK_DAYS = 200  # how much of it growth is judged by
COUNTED_DAYS = 30  # how far back snapshots are still worth counting
KEPT_DAYS = 800  # more than two years, so that a year can be compared with the last
READING_S = 3600.0  # between two readings of free space
_DAY_S = 86400

# In a query for all hosts or one; SQLite uses no index for it.
_ANY_OR_ONE, _ONE = "host = COALESCE(:host, host)", "host = :host"
_PUSHES = """
SELECT host, started, data_taken, metadata_taken, NULLIF(names, -1), stopped,
    COALESCE(ended, 9e999)
FROM transfer
WHERE kind = 'push' AND host = COALESCE(:host, host)
    AND started BETWEEN :since AND :until
"""
_SNAPSHOTS = """
SELECT host, made FROM snapshot
WHERE host = COALESCE(:host, host) AND made BETWEEN :since AND :until
"""
# Each snapshot with the push that it shows, the newest snapshot first.
_UNCOUNTED = """
SELECT made, snapshot.host, snapshot.name, push.id FROM snapshot
JOIN transfer AS push ON push.id = (
    SELECT id FROM transfer WHERE transfer.host = snapshot.host AND kind = 'push'
        AND started <= made ORDER BY started DESC, id DESC LIMIT 1)
WHERE push.names IS NULL AND push.result IN ('whole', 'partial')
    AND snapshot.host = :host AND made BETWEEN :since AND :until
"""
# Each snapshot of a host whose names are counted, the newest first.
_COUNTED = """
SELECT snapshot.name, push.names FROM snapshot
JOIN transfer AS push ON push.id = (
    SELECT id FROM transfer WHERE transfer.host = snapshot.host AND kind = 'push'
        AND started <= made ORDER BY started DESC, id DESC LIMIT 1)
WHERE snapshot.host = :host AND push.names >= 0 AND made BETWEEN :since AND :until
ORDER BY made DESC LIMIT :most
"""
# Each host by a look into the index: DISTINCT would read all rows.
_KNOWN = """
WITH RECURSIVE known (host) AS (SELECT MIN(host) FROM transfer UNION ALL
    SELECT (SELECT MIN(host) FROM transfer WHERE host > known.host) FROM known
    WHERE host IS NOT NULL)
"""
_KNOWN_HOSTS = f"{_KNOWN} SELECT host FROM known WHERE host IS NOT NULL"  # noqa: S608
# A snapshot ends a backup: those before the last one that is not recent are over.
_STANDING_OUT = f"""{_KNOWN},
ended AS MATERIALIZED (
    SELECT host, COALESCE((SELECT MAX(made) FROM snapshot
        WHERE snapshot.host = known.host AND made < :recent), 0) AS made
    FROM known WHERE host IS NOT NULL)
SELECT host FROM ended WHERE (
    SELECT SUM(CASE WHEN started > ended.made THEN data_taken END) > :data
        OR SUM(CASE WHEN started > ended.made THEN metadata_taken END) > :metadata
        OR MAX(stopped)
        OR MIN(CASE WHEN started >= :recent THEN NULLIF(names, -1) END) * :factor
            < MAX(names)
    FROM transfer WHERE transfer.host = ended.host AND kind = 'push'
        AND started BETWEEN :since AND :until)
"""  # noqa: S608 # a constant
_APPROVALS = """
SELECT host, time FROM approval
WHERE host = COALESCE(:host, host) AND time BETWEEN :since AND :until
"""
_BASELINES = """
SELECT host, data_taken, metadata_taken FROM baseline
WHERE host = COALESCE(:host, host) AND data_taken IS NOT NULL
"""


class TransferEnd(NamedTuple):
    """The end of a transfer."""

    result: str
    exit_status: int
    bytes_received: int | None
    bytes_written: int | None


class HostRecord:
    """The record by which growth is judged."""

    def __init__(self) -> None:
        self.pushes: list[Push] = []
        self.snapshots: list[float] = []  # seconds since 1970
        self.approvals: list[float] = []
        self.baseline: Taken | None = None  # of the time before


def begin_transfer(
    store: Store, client: str, address: str, kind: str, *, is_full: bool | None = None
) -> int | None:
    """Record the start of a transfer; its number, or None if that was impossible."""
    with opened(store, short_timeout=kind != "push") as ledger:
        cursor = ledger.execute(
            "INSERT INTO transfer (host, address, kind, started) VALUES (?, ?, ?, ?)",
            (client, address, kind, time.time()),
        )
        ledger.execute(
            "DELETE FROM transfer WHERE started < ?",
            (time.time() - KEPT_DAYS * _DAY_S,),
        )
        with contextlib.suppress(
            sqlite3.OperationalError
        ):  # as in own_word.note_missed
            ledger.execute(
                "UPDATE transfer SET is_full = ? WHERE id = ?",
                (is_full, cursor.lastrowid),
            )
        if cursor.lastrowid is not None and cursor.lastrowid % TRIM_EVERY == 0:
            from byteback.server.accounting.ledger_trim import trim

            trim(ledger, client, rows=KEPT_ROWS, recent=KEPT_RECENT)
        return cursor.lastrowid
    return None


def end_transfer(store: Store, number: int | None, end: TransferEnd) -> None:
    """Record how the transfer ended."""
    with opened(store) as ledger:
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
    stopped: bool = False,
    short_timeout: bool = False,
) -> None:
    """Record how much room a transfer has taken, while it runs or afterwards."""
    with opened(store, short_timeout=short_timeout) as ledger:
        ledger.execute(
            "UPDATE transfer SET data_taken = ?, metadata_taken = ?,"
            " stopped = MAX(stopped, ?) WHERE id = ?",
            (taken.data, taken.metadata, stopped, number),
        )


def uncounted(
    store: Store, clients: Iterable[str] | None = None
) -> list[tuple[str, str, int]]:
    """Host and name of recent snapshots that note_names has not been told of.

    Of all clients, or of these. Newest first, each with the number of the push that it
    shows.
    """
    if not path(store).exists():
        return []
    now = time.time()
    values = {"since": now - COUNTED_DAYS * _DAY_S, "until": now + 1}
    found: list[tuple[float, str, str, int]] = []
    with opened(store) as ledger:
        ledger.execute("BEGIN")  # one lock for all that follows
        for client in known_hosts(store) if clients is None else clients:
            found += ledger.execute(_UNCOUNTED, {"host": client, **values})
    found.sort(reverse=True)
    return [(client, name, push) for _, client, name, push in found]


def counted(
    store: Store, client: str, since: float, most: int
) -> list[tuple[str, int]]:
    """Snapshots made since then of which note_names was told, and how many names.

    The ``most`` newest ones, the newest first.
    """
    values = {"host": client, "since": since, "until": time.time() + 1, "most": most}
    with opened(store, short_timeout=True) as ledger:
        rows = ledger.execute(_COUNTED, values)
        return [(str(name), int(names)) for name, names in rows]
    return []


def note_names(store: Store, number: int, names: int | None) -> None:
    """Record how many names a push has left in its tree; None: that is unknown."""
    with opened(store) as ledger:
        ledger.execute(
            "UPDATE transfer SET names = ? WHERE id = ?",
            (-1 if names is None else names, number),
        )


def approve(store: Store, client: str) -> bool:
    """Record an administrator's approval of a host's backups; False if that failed."""
    with opened(store) as ledger:
        ledger.execute(
            "INSERT INTO approval (host, time) VALUES (?, ?)", (client, time.time())
        )
        ledger.execute(
            "DELETE FROM approval WHERE time < ?", (time.time() - KEPT_DAYS * _DAY_S,)
        )
        return True
    return False


def forget_taken(store: Store, client: str, since: float) -> None:
    """Record that what a host's pushes have taken since then was given back."""
    with opened(store) as ledger:
        ledger.execute(
            "UPDATE transfer SET data_taken = 0, metadata_taken = 0, names = NULL,"
            " stopped = 0 WHERE host = ? AND started >= ?",
            (client, since),
        )


def note_baseline(store: Store, client: str, taken: Taken | None) -> None:
    """Record what a host's backups took before this ledger knew of any.

    None says that this was looked into, and that there was no need to measure it.
    """
    data = None if taken is None else taken.data
    metadata = None if taken is None else taken.metadata
    with opened(store) as ledger:
        ledger.execute(
            "INSERT OR REPLACE INTO baseline VALUES (?, ?, ?, ?)",
            (client, time.time(), data, metadata),
        )


def looked_into(store: Store, since: float) -> set[str]:
    """The hosts whose baseline was measured or found needless since then."""
    if not path(store).exists():
        return set()
    with opened(store, short_timeout=True) as ledger:
        rows = ledger.execute("SELECT host FROM baseline WHERE measured > ?", (since,))
        return {str(row[0]) for row in rows}
    return set()


def note_unrecorded(store: Store, client: str, taken: Taken) -> None:
    """Record a push afterwards, by what it has left in ``current``."""
    now = time.time()
    with opened(store) as ledger:
        ledger.execute(
            "INSERT INTO transfer (host, address, kind, started, ended, result,"
            " data_taken, metadata_taken) VALUES (?, '', 'push', ?, ?, 'failed', ?, ?)",
            (client, now, now, taken.data, taken.metadata),
        )


def known_hosts(store: Store) -> list[str]:
    """All hosts that have ever sent anything, as far as the ledger goes back."""
    if not path(store).exists():
        return []
    with opened(store) as ledger:
        rows = ledger.execute(_KNOWN_HOSTS)
        return [str(client) for (client,) in rows]
    return []


def hosts_that_stand_out(
    store: Store, now: float, least: Taken, factor: float
) -> list[str]:
    """Hosts of which a backup that growth judges may be larger or smaller.

    That is one whose recent pushes together took more than ``least``, one whose push
    was stopped, and one of which a recent tree had less than 1/``factor`` of the names
    that another one had. A recent backup may have begun long ago: its pushes count
    from the last snapshot before that on.
    """
    if not path(store).exists():
        return []
    values = {
        "recent": now - RECENT_DAYS * _DAY_S,
        "since": now - LOOK_BACK_DAYS * _DAY_S,
        "until": now + 1,
        "data": least.data,
        "metadata": least.metadata,
        "factor": factor,
    }
    with opened(store) as ledger:
        return [str(client) for (client,) in ledger.execute(_STANDING_OUT, values)]
    return []


def host_records(store: Store, client: str | None = None) -> dict[str, HostRecord]:
    """The recent pushes, snapshots and approvals of all hosts, or of one.

    Nothing is written; empty where there is no ledger, or none that can be read.
    """
    from byteback.model.growth import Push, Taken

    found: dict[str, HostRecord] = {}
    if not path(store).exists():
        return found
    # Nothing of the future either: a clock that was wrong must not mix up the order.
    now = time.time()
    values = {"host": client, "since": now - LOOK_BACK_DAYS * _DAY_S, "until": now + 1}
    queries = [_PUSHES, _SNAPSHOTS, _APPROVALS, _BASELINES]
    if client is not None:
        queries = [query.replace(_ANY_OR_ONE, _ONE) for query in queries]
    pushes, snapshots, approvals, baselines = queries
    with opened(store) as ledger:
        for name, started, data, metadata, names, stopped, ended in ledger.execute(
            pushes, values
        ):
            taken = Taken(data or 0, metadata or 0)
            push = Push(started, taken, names, bool(stopped), ended)
            found.setdefault(name, HostRecord()).pushes.append(push)
        for name, made in ledger.execute(snapshots, values):
            found.setdefault(name, HostRecord()).snapshots.append(made)
        for name, moment in ledger.execute(approvals, values):
            found.setdefault(name, HostRecord()).approvals.append(moment)
        for name, data, metadata in ledger.execute(baselines, {"host": client}):
            # By itself it says nothing of a host: there is no backup to be judged.
            if name in found:
                found[name].baseline = Taken(data, metadata)
    return found


def last_times(store: Store) -> Iterator[float]:
    """When things were recorded last, of each kind of thing; seconds since 1970.

    It is asked when the first of them is wanted: reading all rows takes a moment.
    """
    if not path(store).exists():
        return
    times: list[float] = []
    with opened(store, short_timeout=True) as ledger:
        rows = ledger.execute(
            "SELECT MAX(started) FROM transfer"
            " UNION SELECT MAX(ended) FROM transfer"
            " UNION SELECT MAX(made) FROM snapshot"
            " UNION SELECT MAX(time) FROM free_space"
        )
        times = [float(row[0]) for row in rows if row[0] is not None]
    yield from times


def add_snapshot(
    store: Store,
    client: str,
    name: str,
    *,
    incomplete: bool,
    files: int | None,
    size: int | None = None,
    sources: str | None = None,
    made: float | None = None,
) -> None:
    """Record a snapshot that was made; ``files`` and so on are the client's word.

    ``made`` is in seconds since 1970, None for now.
    """
    with opened(store) as ledger:
        cursor = ledger.execute(
            "INSERT INTO snapshot (host, name, made, incomplete, files)"
            " VALUES (?, ?, ?, ?, ?)",
            (client, name, made or time.time(), incomplete, files),
        )
        with contextlib.suppress(
            sqlite3.OperationalError
        ):  # as in own_word.note_missed
            ledger.execute(
                "UPDATE snapshot SET size = ?, sources = ? WHERE id = ?",
                (size, sources, cursor.lastrowid),
            )
        ledger.execute(
            "DELETE FROM snapshot WHERE made < ?", (time.time() - KEPT_DAYS * _DAY_S,)
        )


def incomplete_snapshots(store: Store, client: str) -> frozenset[str]:
    """Names of the host's snapshots that are known to lack some files."""
    with opened(store, short_timeout=True) as ledger:
        rows = ledger.execute(
            "SELECT name FROM snapshot WHERE host = ? AND incomplete", (client,)
        )
        return frozenset(str(row[0]) for row in rows)
    return frozenset()


def note_deletion(
    store: Store, client: str, name: str, expected: int | None, freed: int | None
) -> None:
    """Record that pruning deleted a snapshot, and how many bytes came back."""
    now = time.time()
    with opened(store, short_timeout=True) as ledger:
        ledger.execute(
            "INSERT INTO deletion (host, name, time, expected, freed)"
            " VALUES (?, ?, ?, ?, ?)",
            (client, name, now, expected, freed),
        )
        ledger.execute(
            "DELETE FROM deletion WHERE time < ?", (now - KEPT_DAYS * _DAY_S,)
        )


def note_free_space(store: Store, free_bytes: int, total_bytes: int) -> None:
    """Record the free space of the store, once an hour however often it is called."""
    now = time.time()
    with opened(store, short_timeout=True) as ledger:
        (newest,) = ledger.execute("SELECT MAX(time) FROM free_space").fetchone()
        if newest is not None and 0 <= now - newest < READING_S:
            return
        ledger.execute(
            "INSERT OR REPLACE INTO free_space VALUES (?, ?, ?)",
            (now, free_bytes, total_bytes),
        )
        ledger.execute(
            "DELETE FROM free_space WHERE time < ? OR time > ?",
            (now - KEPT_DAYS * _DAY_S, now),
        )


def forget_snapshot(store: Store, client: str, name: str) -> None:
    """Take back that a snapshot was made, for it was not."""
    with opened(store) as ledger:
        ledger.execute(
            "DELETE FROM snapshot WHERE host = ? AND name = ?", (client, name)
        )
