"""Which snapshots matter most, why, and which one goes next."""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import NamedTuple

from byteback.model.snapshot import Snapshot

MIDDAY = time(12)
DAY = timedelta(days=1)
PERIOD = timedelta(days=28)
GRID_START = date(1970, 1, 4)  # a Sunday; the grid stays put whatever today is
RECENT_DAYS = 7
RECENT_SUNDAYS = 4
MIN_AGE = timedelta(days=7)

NO_TARGET = "newest first, nearest to no target"
BY_AGE = "newest first"


class RankedSnapshot(NamedTuple):
    """A snapshot and why it stands where it does in an order."""

    snapshot: Snapshot
    reason: str


class Target(NamedTuple):
    """A moment that each host should have a snapshot near to."""

    time: datetime
    reason: str


def order_by_age(snapshots: Iterable[Snapshot]) -> list[RankedSnapshot]:
    """All snapshots, newest first."""
    return [RankedSnapshot(snapshot, BY_AGE) for snapshot in _newest_first(snapshots)]


def order_by_importance(
    snapshots: Iterable[Snapshot], now: datetime, zone: tzinfo
) -> list[RankedSnapshot]:
    """All snapshots, the most important first and the next to go last.

    For each target in turn, each host gives the snapshot nearest to it, if that is
    older than the one it gave last. What no target wants follows, newest first.
    ``zone`` is the server's: it says which day ``now`` is, and when midday was.
    """
    newest_first = _newest_first(snapshots)
    hosts: dict[str, list[Snapshot]] = {}
    for snapshot in newest_first:
        hosts.setdefault(snapshot.host, []).append(snapshot)
    pickers = [_Picker(own[::-1]) for own in hosts.values()]
    places: list[RankedSnapshot] = []
    if newest_first:
        oldest = newest_first[-1].time
        for target in targets(now, zone, oldest):
            # A host that has nothing older left to give will never give again, so
            # that one stray ancient snapshot costs its own host alone.
            pickers = [picker for picker in pickers if not picker.is_exhausted()]
            if not pickers:
                break
            for picker in pickers:
                picked = picker.pick(target.time)
                if picked is not None:
                    places.append(RankedSnapshot(picked, target.reason))
    chosen = {place.snapshot for place in places}
    left = (snapshot for snapshot in newest_first if snapshot not in chosen)
    places += [RankedSnapshot(snapshot, NO_TARGET) for snapshot in left]
    return places


def targets(now: datetime, zone: tzinfo, oldest: datetime) -> Iterator[Target]:
    """The moments worth having a snapshot of, the most important first.

    Midday today and the six days before; of the four Sundays before those; then of
    every fourth Sunday on a fixed grid, down to the first that is not later than
    ``oldest``. Days are counted on the calendar, so that a day of 23 or 25 hours
    shifts nothing.
    """
    today = now.astimezone(zone).date()
    for back in range(RECENT_DAYS):
        day = today - back * DAY
        yield Target(_midday(day, zone), f"nearest to midday of {day}")
    sunday = today - (RECENT_DAYS - 1) * DAY
    sunday -= (sunday.isoweekday() % 7 or 7) * DAY  # strictly before
    for _ in range(RECENT_SUNDAYS):
        yield Target(_midday(sunday, zone), f"nearest to midday of Sunday {sunday}")
        sunday -= 7 * DAY
    sunday += 7 * DAY
    sunday -= (sunday - GRID_START) % PERIOD
    while sunday.year > 1:  # earlier dates cannot be moved between zones
        midday = _midday(sunday, zone)
        yield Target(midday, f"nearest to midday of fourth Sunday {sunday}")
        if midday <= oldest:
            return
        sunday -= PERIOD


def protections(snapshots: Collection[Snapshot], now: datetime) -> dict[Snapshot, str]:
    """The snapshots that must stay unless forced, each with why.

    A snapshot of the future, from a clock that was wrong, counts as young, and does
    not take the place of its host's newest unless there is no other.
    """
    kept = {s: "younger than 7 days" for s in snapshots if now - s.time < MIN_AGE}
    kept.update((s, "newest of its host") for s in newest_of_hosts(snapshots, now))
    return kept


def newest_of_hosts(snapshots: Iterable[Snapshot], now: datetime) -> set[Snapshot]:
    """The newest snapshot of each host; one of the future only if there is no other."""
    newest: dict[str, Snapshot] = {}
    for snapshot in _newest_first(snapshots):
        best = newest.get(snapshot.host)
        if best is None or (best.time > now >= snapshot.time):
            newest[snapshot.host] = snapshot
    return set(newest.values())


def next_to_go(
    places: Sequence[RankedSnapshot], now: datetime, spared: Collection[Snapshot] = ()
) -> RankedSnapshot | None:
    """The last in the order that is neither protected nor ``spared``, or None.

    Nothing goes while no snapshot at all is a week old, for each is young then.
    """
    kept = protections([place.snapshot for place in places], now)
    for place in reversed(places):
        if place.snapshot not in kept and place.snapshot not in spared:
            return place
    return None


def next_to_force(
    places: Sequence[RankedSnapshot], now: datetime, spared: Collection[Snapshot] = ()
) -> tuple[RankedSnapshot, bool] | None:
    """The last in the order, whatever its age, and whether it is its host's newest.

    None if all that is left is ``spared``. A host's newest is taken only when nothing
    else is left, and so never because all the others are spared.
    """
    newest = newest_of_hosts([place.snapshot for place in places], now)
    others = [place for place in places if place.snapshot not in newest]
    candidates = others or places
    for place in reversed(candidates):
        if place.snapshot not in spared:
            return place, not others
    return None


class _Picker:
    """One host's snapshots, from which each target takes the nearest."""

    def __init__(self, oldest_first: list[Snapshot]) -> None:
        self._snapshots = oldest_first
        self._times = [snapshot.time for snapshot in oldest_first]
        # For a place p, _newer[p] leads to the first unchosen place >= p, and
        # _older[p] to the last unchosen one < p, both shifted by one so that each
        # end has a place of its own. Paths are halved while they are walked.
        size = len(oldest_first)
        self._newer = list(range(size + 1))
        self._older = list(range(size + 1))
        self._last: datetime | None = None

    def is_exhausted(self) -> bool:
        """True if nothing unchosen is older than what was picked last."""
        first = _walk(self._newer, 0)
        if first == len(self._times):
            return True
        return self._last is not None and self._times[first] >= self._last

    def pick(self, target: datetime) -> Snapshot | None:
        """Choose the unchosen snapshot nearest to ``target``, or none.

        None if that one is not older than the last. Of two that are equally near it
        is the newer one.
        """
        place = bisect.bisect_left(self._times, target)
        newer = _walk(self._newer, place)
        older = _walk(self._older, place) - 1
        if newer == len(self._times) and older < 0:
            return None
        nearest = self._nearer(older, newer, target)
        if self._last is not None and self._times[nearest] >= self._last:
            return None
        self._last = self._times[nearest]
        self._newer[nearest] = nearest + 1
        self._older[nearest + 1] = nearest
        return self._snapshots[nearest]

    def _nearer(self, older: int, newer: int, target: datetime) -> int:
        if older < 0:
            return newer
        if newer == len(self._times):
            return older
        distance = self._times[newer] - target
        return newer if distance <= target - self._times[older] else older


def _walk(links: list[int], place: int) -> int:
    while links[place] != place:
        links[place] = links[links[place]]
        place = links[place]
    return place


def _newest_first(snapshots: Iterable[Snapshot]) -> list[Snapshot]:
    by_name = sorted(snapshots, key=lambda s: (s.host, s.name))
    return sorted(by_name, key=lambda s: s.time, reverse=True)


def _midday(day: date, zone: tzinfo) -> datetime:
    return datetime.combine(day, MIDDAY, zone).astimezone(UTC)
