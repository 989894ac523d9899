"""The room that each client takes in the store, as the ledger has measured it."""

from __future__ import annotations

import bisect
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from byteback.model import space_estimate
from byteback.model.growth import SNAPSHOT_NAME_S
from byteback.model.snapshot import Snapshot
from byteback.model.space_estimate import Deletion, Step
from byteback.server.accounting.ledger_file import opened, path
from byteback.server.store.layout import Store

# The newest size, the oldest one since a time, and what was taken since another time.
_SIZES = """
SELECT
    (SELECT size FROM snapshot WHERE host = :host AND size IS NOT NULL
        ORDER BY made DESC LIMIT 1),
    (SELECT size FROM snapshot WHERE host = :host AND size IS NOT NULL
        AND made >= :oldest ORDER BY made LIMIT 1),
    (SELECT SUM(data_taken) FROM transfer WHERE host = :host AND kind = 'push'
        AND started > :pushed)
"""
_PUSHES = """
SELECT started, COALESCE(data_taken, 0) FROM transfer
WHERE host = ? AND kind = 'push' ORDER BY started
"""
_MADE = "SELECT made, name FROM snapshot WHERE host = ? ORDER BY made"
_DELETED = """
SELECT expected, freed FROM deletion
WHERE expected IS NOT NULL AND freed IS NOT NULL ORDER BY id DESC LIMIT 50
"""


class ClientSize(NamedTuple):
    """Bytes that a client takes, None where the ledger does not tell."""

    current: int | None  # of all its files, as the client counted them
    history: int | None  # about what comes back if its snapshots go


def client_sizes(
    store: Store, oldest: Mapping[str, float | None]
) -> dict[str, ClientSize]:
    """The sizes of these clients, each given with the time of its oldest snapshot."""
    found: dict[str, ClientSize] = {}
    if not path(store).exists():
        return found
    with opened(store, short_timeout=True) as ledger:
        ledger.execute("BEGIN")  # one lock for all that follows
        factor = _calibration(ledger)
        for client, since in oldest.items():
            # A name tells its time to the minute: not the push that the oldest shows.
            pushed = None if since is None else since + SNAPSHOT_NAME_S
            values = {"host": client, "oldest": since, "pushed": pushed}
            current, first, taken = ledger.execute(_SIZES, values).fetchone()
            grown = None if current is None or first is None else current - first
            if taken is None and first is not None:
                taken = 0  # nothing came after a snapshot that the ledger knows
            history = space_estimate.history_bytes(taken or 0, grown, factor)
            found[client] = ClientSize(current, None if taken is None else history)
    return found


def expected_from_each(
    store: Store, client: str, names: Collection[str]
) -> dict[str, int]:
    """About how many bytes the deletion of each snapshot gives back, by its name.

    ``names`` are the client's snapshots; those that the ledger does not know of are
    left out.
    """
    if not path(store).exists():
        return {}
    with opened(store, short_timeout=True) as ledger:
        made = ledger.execute(_MADE, (client,)).fetchall()
        pushes = ledger.execute(_PUSHES, (client,)).fetchall()
        starts = [started for started, _ in pushes]
        steps, before = [], 0
        for time, name in made:
            if name in names:
                end = bisect.bisect_right(starts, time)
                steps.append(Step(name, sum(taken for _, taken in pushes[before:end])))
                before = end
        return space_estimate.expected_from_each(steps, _calibration(ledger))
    return {}


def expected_from_all(
    store: Store, snapshots: Iterable[Snapshot]
) -> dict[Snapshot, int]:
    """About what the deletion of each of these snapshots gives back, in bytes."""
    by_host: dict[str, dict[str, Snapshot]] = {}
    for snapshot in snapshots:
        by_host.setdefault(snapshot.host, {})[snapshot.name] = snapshot
    found = {}
    for client, named in by_host.items():
        for name, size in expected_from_each(store, client, named.keys()).items():
            found[named[name]] = size
    return found


def _calibration(ledger: sqlite3.Connection) -> float:
    return space_estimate.calibration(
        [Deletion(*row) for row in ledger.execute(_DELETED)]
    )
