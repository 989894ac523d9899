"""Judges if a backup is suddenly larger, or smaller, than its client's earlier ones.

A *backup* here is all that a client sent between two of its snapshots, however often
the line broke: otherwise a client could grow by many small transfers unnoticed.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

REMEMBERED = 10  # earlier backups that one is compared with
# From so many on the history says something; a host that was watched from its first
# backup on needs no more than that one.
ENOUGH_HISTORY = 3
FEW_NAMES = 100  # trees smaller than this may shrink as they like
SNAPSHOT_NAME_S = 60.0  # a snapshot's name tells its time to the minute
CLOSE_S = 2 * 86400.0  # snapshots further apart show more than one backup
JUDGED_S = 30 * 86400.0  # after that a change is how things are now


class Rules(NamedTuple):
    """The limits beyond which a change is sudden."""

    growth_factor: float = 2.0
    growth_percent: float = 1.0  # of the store
    shrink_factor: float = 2.0


class Taken(NamedTuple):
    """Bytes of the disc, as the server measured them."""

    data: int = 0
    metadata: int = 0

    def __add__(self, other: Taken) -> Taken:  # type: ignore[override]
        return Taken(self.data + other.data, self.metadata + other.metadata)


class Push(NamedTuple):
    """One transfer to the server, finished or cut off."""

    started: float  # seconds since 1970
    taken: Taken
    names: int | None = None  # in the tree afterwards; None if it was not finished
    was_stopped: bool = False  # by the server, for want of room
    ended: float = math.inf  # infinite for one that is under way


class Backup:
    """The pushes between two snapshots."""

    def __init__(
        self, began: float, *, is_approved: bool, taken: Taken | None = None
    ) -> None:
        self.began = began
        self.is_approved = is_approved
        self.taken = taken or Taken()
        self.names: int | None = None
        self.was_stopped = False
        self.pushes: list[Push] = []

    @property
    def ended(self) -> float:
        """When its last push did."""
        return self.pushes[-1].ended if self.pushes else self.began

    def add(self, push: Push) -> None:
        """Count one more push; an end that was not recorded came before it."""
        if self.pushes and math.isinf(self.pushes[-1].ended):
            self.pushes[-1] = self.pushes[-1]._replace(ended=push.started)
        self.pushes.append(push)
        self.taken += push.taken
        self.names = push.names if push.names is not None else self.names
        self.was_stopped |= push.was_stopped


class Shrinkage(NamedTuple):
    """A tree that has lost most of its names."""

    since: float
    names: int
    usual_names: int


class Verdict(NamedTuple):
    """The judgement on a host's recent backups."""

    blamed: Taken = Taken()  # of backups that were suddenly larger
    blamed_since: float | None = None
    shrinkage: Shrinkage | None = None
    is_guess: bool = False  # nothing is known yet of what its backups usually take


class Origin(NamedTuple):
    """The measure for a host's earliest recorded backups."""

    oldest_snapshot: float | None = None  # time of the oldest that is still there
    baseline: Taken | None = None  # what those before the record took (D41)


class Step(NamedTuple):
    """The bytes written between two snapshots."""

    seconds: float
    taken: Taken


class Allowance(NamedTuple):
    """How much more a running backup may take before it counts as larger."""

    so_far: Taken
    limit: Taken
    is_first: bool = False  # there is no earlier backup to be larger than
    is_guess: bool = False  # there are some, of which nothing is known yet

    def is_exceeded_by(self, taken: Taken) -> bool:
        """True if that much on top of what was taken already is too much."""
        whole = self.so_far + taken
        return whole.data > self.limit.data or whole.metadata > self.limit.metadata


def group(
    pushes: Iterable[Push], snapshots: Sequence[float], approvals: Iterable[float]
) -> list[Backup]:
    """A host's pushes as backups, oldest first; times are seconds since 1970.

    An approval holds for all that came before it and for the backup that was under
    way or came next.
    """
    ends = sorted(snapshots)
    approved = max((bisect.bisect_right(ends, time) for time in approvals), default=-1)
    backups: dict[int, Backup] = {}
    for push in sorted(pushes, key=lambda push: push.started):
        place = bisect.bisect_right(ends, push.started)
        if place not in backups:
            backups[place] = Backup(push.started, is_approved=place <= approved)
        backups[place].add(push)
    return list(backups.values())


def judge(
    backups: Sequence[Backup],
    now: float,
    store: Taken,
    rules: Rules,
    origin: Origin = Origin(),  # noqa: B008 # a value that never changes
) -> Verdict:
    """Judge a host's backups of the last 30 days.

    ``store`` is the size of the whole store. A host whose first backups were not
    recorded is judged by its baseline until there are enough others, and where there
    is none yet by the share of the store alone.
    """
    return _look_back(backups, now, _History(backups, store, rules, origin))


def needs_baseline(
    backups: Sequence[Backup],
    now: float,
    store: Taken,
    rules: Rules,
    origin: Origin = Origin(),  # noqa: B008 # a value that never changes
) -> bool:
    """True if too little was recorded to judge by: then older snapshots must tell."""
    past = _History(backups, store, rules, origin)
    _look_back(backups, now, past)
    return past.is_unknown


def largest_step(steps: Sequence[Step]) -> Taken:
    """The most that a usual backup took, by what was written between snapshots.

    Those that are far apart show many backups at once, and count only if no others
    are left.
    """
    close = [step.taken for step in steps if step.seconds <= CLOSE_S]
    taken = close or [step.taken for step in steps]
    return Taken(
        max((one.data for one in taken), default=0),
        max((one.metadata for one in taken), default=0),
    )


def allowance(
    backups: Sequence[Backup],
    current: Backup | None,
    now: float,
    store: Taken,
    rules: Rules,
    origin: Origin = Origin(),  # noqa: B008 # a value that never changes
) -> Allowance | None:
    """The room that a running backup may take, or None if it is approved.

    ``current`` is what it has taken before its line broke, and no part of
    ``backups``. A first backup is measured like any other; it is for the caller to
    let it have all the room there is.
    """
    so_far = current.taken if current is not None else Taken()
    if current is not None and current.is_approved:
        return None
    past = _History(backups, store, rules, origin)
    _look_back(backups, now, past)
    return Allowance(
        so_far,
        past.limit(),
        is_first=past.is_known_from_start and not past.taken,
        is_guess=past.is_guess,
    )


class _History:
    """The last few backups that nothing was wrong with."""

    def __init__(
        self, backups: Sequence[Backup], store: Taken, rules: Rules, origin: Origin
    ) -> None:
        self.store = store
        self.rules = rules
        self.baseline = origin.baseline
        self.is_known_from_start = _is_known_from_start(backups, origin)
        self.taken: deque[Taken] = deque(maxlen=REMEMBERED)
        self.names: deque[int] = deque(maxlen=REMEMBERED)

    @property
    def is_unknown(self) -> bool:
        """True if what was recorded says too little of what is usual."""
        return not self.is_known_from_start and len(self.taken) < ENOUGH_HISTORY

    @property
    def is_guess(self) -> bool:
        """True if there is nothing else to judge by, either."""
        return self.is_unknown and self.baseline is None

    @property
    def usual_names(self) -> int:
        """The lower median: one odd backup among them says nothing."""
        return sorted(self.names)[(len(self.names) - 1) // 2]

    def limit(self) -> Taken:
        factor, share = self.rules.growth_factor, self.rules.growth_percent / 100
        known = list(self.taken)
        if self.is_unknown and self.baseline is not None:
            known.append(self.baseline)
        data = max((taken.data for taken in known), default=0)
        metadata = max((taken.metadata for taken in known), default=0)
        return Taken(
            int(max(factor * data, share * self.store.data)),
            int(max(factor * metadata, share * self.store.metadata)),
        )

    def is_larger(self, taken: Taken) -> bool:
        if self.is_known_from_start and not self.taken:
            return False  # a first backup may take what there is
        return Allowance(Taken(), self.limit()).is_exceeded_by(taken)

    def larger_since(self, backup: Backup) -> float | None:
        """When a backup had become larger at the latest; None if it has not.

        Not when it began: a client can begin small, or only connect, and go on when
        no administrator looks any more.
        """
        if not (backup.was_stopped or self.is_larger(backup.taken)):
            return None
        so_far = Taken()
        for push in backup.pushes:
            so_far += push.taken
            if push.was_stopped or self.is_larger(so_far):
                return push.ended
        return backup.began

    def is_smaller(self, names: int) -> bool:
        if len(self.names) < ENOUGH_HISTORY or self.usual_names < FEW_NAMES:
            return False
        return names * self.rules.shrink_factor < self.usual_names


def _look_back(backups: Sequence[Backup], now: float, past: _History) -> Verdict:
    """Judge each backup by those before it, and leave the good ones in ``past``."""
    blamed, since, shrinkage = Taken(), None, None
    is_guess = False
    for backup in backups:
        larger_since = None if backup.is_approved else past.larger_since(backup)
        if larger_since is not None and now - larger_since <= JUDGED_S:
            blamed += backup.taken
            is_guess |= past.is_guess
            since = backup.began if since is None else since
        else:
            past.taken.append(backup.taken)
        if backup.names is None:
            continue
        is_open = not backup.is_approved and now - backup.ended <= JUDGED_S
        if is_open and past.is_smaller(backup.names):
            if shrinkage is None:
                shrinkage = Shrinkage(backup.began, backup.names, past.usual_names)
        else:
            shrinkage = None  # what was missing is back, or was approved
            past.names.append(backup.names)
    return Verdict(blamed, since, shrinkage, is_guess)


def _is_known_from_start(backups: Sequence[Backup], origin: Origin) -> bool:
    oldest = origin.oldest_snapshot
    if oldest is None:
        return True
    return bool(backups) and backups[0].began <= oldest + SNAPSHOT_NAME_S
