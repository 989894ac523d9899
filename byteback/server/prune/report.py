"""Shows which snapshots there are, in which order they matter, and what keeps them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from byteback.model import coverage, retention, timeline
from byteback.model.growth import Verdict
from byteback.model.retention import RankedSnapshot
from byteback.model.size import format_size
from byteback.model.snapshot import Snapshot
from byteback.server.accounting import growth
from byteback.server.prune.obstacles import Kind, Obstacles, of_kind
from byteback.server.store.layout import Store
from byteback.system.local_zone import LocalZone

AGE = "age"
IMPORTANCE = "importance"
ORDERS = (AGE, IMPORTANCE)


def snapshots(store: Store) -> list[Snapshot]:
    """All snapshots of all clients."""
    found: list[Snapshot] = []
    for client in store.hosts():
        # A host's directory may be taken away while we look.
        with contextlib.suppress(FileNotFoundError):
            found += store.snapshots(client)
    return found


def places(
    snapshots_: Iterable[Snapshot], order: str, now: datetime
) -> list[RankedSnapshot]:
    """Snapshots in the chosen order, the next to go last."""
    if order == AGE:
        return retention.order_by_age(snapshots_)
    return retention.order_by_importance(snapshots_, now, LocalZone())


def listing(
    places_: Sequence[RankedSnapshot],
    verdicts: Mapping[str, Verdict],
    obstacles: Obstacles,
    now: datetime,
    sizes: Mapping[Snapshot, int],
    sources: Mapping[tuple[str, str], Sequence[str]],
) -> list[str]:
    """One line for each snapshot, in order: HOST/SNAPSHOT, size, why, what keeps it.

    The size is about what its deletion gives back, where that is known. Snapshots of
    some ``sources`` alone, by client and name, are marked.

    Those that cannot be deleted are marked. What is no snapshot at all comes first, for
    it has no place in the order.
    """
    kept = retention.protections([place.snapshot for place in places_], now)
    kept.update(growth.held((place.snapshot for place in places_), verdicts))
    words: dict[Snapshot, list[str]] = {
        snapshot: [] for snapshot in of_kind(obstacles, Kind.NO_SUBVOLUME)
    }
    for snapshot, reason in places_:
        words[snapshot] = [reason]
        made_of = sources.get((snapshot.host, snapshot.name), ())
        if made_of and coverage.is_bounded(made_of):
            words[snapshot].append(f"of {coverage.describe(made_of)} only")
        if snapshot in kept:
            words[snapshot].append(f"kept: {kept[snapshot]}")
    for snapshot, obstacle in obstacles.items():
        if snapshot in words:
            words[snapshot].append(f"cannot be deleted: {obstacle.reason}")
    width = max((len(snapshot.path) for snapshot in words), default=0)
    shown = {s: f"~{format_size(sizes[s])}" if s in sizes else "" for s in words}
    wide = max((len(text) for text in shown.values()), default=0)
    return [
        f"{s.path:<{width}}  {shown[s]:>{wide}}{'  ' if wide else ''}{'; '.join(said)}"
        for s, said in words.items()
    ]


def draw(store: Store, now: datetime, width: int) -> list[str]:
    """Which days each host still has, for a terminal of ``width`` columns."""
    return timeline.draw(snapshots(store), now, LocalZone(), width)
