"""About how much room a client's history takes, from what the server has measured.

btrfs tells this only with quota groups, which make snapshots slow, or by reading all
trees. The ledger has what each push took from the disc, and what each deletion gave
back. That gives an estimate, which is calibrated by the deletions themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from byteback.model.status import DAY_S, Report

ENOUGH = 3  # measured deletions that say something
LEAST_BYTES = 1 << 20  # smaller deletions are lost in the noise of others' writing
LEAST_DAYS = 7  # that backups must cover before they tell how fast history grows
LEAST_FACTOR, MOST_FACTOR = 0.1, 10.0


class Step(NamedTuple):
    """One snapshot that is there: its time, and what was taken since the one before.

    ``taken`` is bytes, of all pushes since the snapshot before it that is still there.
    """

    name: str
    taken: int


class Deletion(NamedTuple):
    """One measured deletion: bytes that were expected back, and that came back."""

    expected: int
    freed: int


def calibration(deletions: Sequence[Deletion]) -> float:
    """By how much estimates were too low: the median of what deletions gave back.

    1 where too few were measured.
    """
    ratios = [
        freed / expected for expected, freed in deletions if expected >= LEAST_BYTES
    ]
    if len(ratios) < ENOUGH:
        return 1.0
    ordered, middle = sorted(ratios), len(ratios) // 2
    # The median, without the module statistics, which takes long to load.
    median = (ordered[middle] + ordered[~middle]) / 2
    return min(max(median, LEAST_FACTOR), MOST_FACTOR)


def expected_from_each(steps: Sequence[Step], factor: float = 1.0) -> dict[str, int]:
    """About how many bytes come back if one of these snapshots goes, by its name.

    ``steps`` are one client's, oldest first. What a snapshot alone holds came with it,
    and was replaced or removed in the next one: it is at most what either took. The
    newest is shared with ``current``, and gives nothing back.
    """
    found = {step.name: 0 for step in steps}
    for step, following in pairwise(steps):
        found[step.name] = int(factor * min(step.taken, following.taken))
    return found


def history_bytes(taken: int, grown: int | None, factor: float = 1.0) -> int:
    """About how many bytes come back if all of a client's snapshots go.

    ``taken`` is what its pushes took since the oldest one, ``grown`` by how much its
    files have grown meanwhile: ``current`` keeps that.
    """
    return max(0, int(factor * (taken - max(0, grown or 0))))


def expected_reach_s(report: Report) -> float | None:
    """The age that history will reach once the store is full, in seconds.

    What there is for history, its estimated size and the free space above the limit,
    divided by what all clients add in a second. None where too little is known.
    """
    store = report.store
    histories = [c.history_bytes for c in report.clients if c.history_bytes is not None]
    known = [client.backups for client in report.clients if client.backups]
    spans = (backups[-1].started - backups[0].started for backups in known)
    span_s = max(spans, default=0.0)
    taken = sum(b.taken or 0 for backups in known for b in backups[1:])
    is_known = bool(histories) and span_s >= LEAST_DAYS * DAY_S and taken > 0
    if not is_known or store.free_bytes is None or store.total_bytes is None:
        return None
    above = store.free_bytes - store.min_percent / 100 * store.total_bytes
    return (sum(histories) + max(above, 0.0)) / (taken / span_s)
