"""Keeps the ledger short for each host, and what its backups took true.

A client decides how often it comes. It must be able to hide neither a large push behind
a thousand small ones nor a large backup by dividing it into ten thousand pushes: so of
each recent backup the last push always stays, and gets what is dropped of the others.
The last, for a backup that became larger is judged for a time from then on.
"""

from __future__ import annotations

import bisect
import sqlite3
from typing import NamedTuple

_ROWS = """
SELECT id, kind = 'push', started, COALESCE(data_taken, 0), COALESCE(metadata_taken, 0),
    stopped
FROM transfer WHERE host = ? ORDER BY id DESC
"""
_ADD = """
UPDATE transfer SET data_taken = COALESCE(data_taken, 0) + ?,
    metadata_taken = COALESCE(metadata_taken, 0) + ?, stopped = MAX(stopped, ?)
WHERE id = ?
"""


class _Row(NamedTuple):
    number: int
    is_push: bool
    started: float
    data: int
    metadata: int
    stopped: int


def trim(ledger: sqlite3.Connection, client: str, *, rows: int, recent: int) -> None:
    """Drop all but some ``rows`` of a host's transfers.

    The last ``recent`` stay, then the pushes that took most, and in any case the
    last of each of the last ``recent`` backups: what lies between two snapshots.
    """
    found = [_Row(*row) for row in ledger.execute(_ROWS, (client,))]
    if len(found) <= rows:
        return
    made = "SELECT made FROM snapshot WHERE host = ? ORDER BY made"
    ends = [float(time) for (time,) in ledger.execute(made, (client,))]
    largest_first = sorted(
        found, key=lambda row: (row.data + row.metadata, row.number), reverse=True
    )
    lasts: dict[int, int] = {}  # of each backup, by how many snapshots came before it
    newest, *older = [row for row in found if row.is_push] or found
    # What the newest push takes is still to be written, over whatever is there.
    for row in older:
        lasts.setdefault(bisect.bisect_right(ends, row.started), row.number)
    kept = {row.number for row in found[:recent] + largest_first[: rows - recent]}
    kept.add(newest.number)
    kept.update(lasts[place] for place in sorted(lasts)[-recent:])
    for row in found:
        if row.number in kept:
            continue
        last = lasts.get(bisect.bisect_right(ends, row.started))
        if row.is_push and last in kept:
            ledger.execute(_ADD, (row.data, row.metadata, row.stopped, last))
        ledger.execute("DELETE FROM transfer WHERE id = ?", (row.number,))
