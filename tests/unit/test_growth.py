"""What counts as suddenly larger or smaller, and what follows from it."""

from __future__ import annotations

import math

import pytest

from byteback.model import growth
from byteback.model.growth import Backup, Push, Rules, Taken, Verdict

DAY = 86400.0
STORE = Taken(10_000, 1_000)
RULES = Rules()
NOW = 100 * DAY


def backups(*taken: int, last_day: float = 99) -> list[Backup]:
    """One backup a day, the last one on ``last_day``."""
    first = last_day - len(taken) + 1
    return [
        Backup((first + place) * DAY, is_approved=False, taken=Taken(size))
        for place, size in enumerate(taken)
    ]


def judge(made: list[Backup], oldest_snapshot: float | None = None) -> Verdict:
    return growth.judge(made, NOW, STORE, RULES, oldest_snapshot)


# --- Grouping --------------------------------------------------------------------


def test_pushes_between_two_snapshots_are_one_backup() -> None:
    pushes = [Push(t, Taken(5, 1), names=n) for t, n in ((1, None), (2, 7), (4, 9))]
    made = growth.group(pushes, [3, 5], [])
    assert [backup.taken for backup in made] == [Taken(10, 2), Taken(5, 1)]
    assert [backup.names for backup in made] == [7, 9]
    assert [backup.began for backup in made] == [1, 4]


def test_a_cut_off_push_forgets_no_names_and_one_stop_counts() -> None:
    pushes = [Push(1, Taken(), names=7), Push(2, Taken(), was_stopped=True)]
    (backup,) = growth.group(pushes, [], [])
    assert backup.names == 7
    assert backup.was_stopped


@pytest.mark.parametrize(
    ("approval", "approved"),
    [
        (0.5, [True, False, False]),  # in advance, for the first backup
        (1.5, [True, False, False]),
        (3.5, [True, True, False]),  # after the second backup's end: the next as well
        (9.0, [True, True, True]),
    ],
)
def test_an_approval_holds_for_the_past_and_the_backup_at_hand(
    approval: float, approved: list[bool]
) -> None:
    pushes = [Push(time, Taken(1)) for time in (1, 3, 5)]
    made = growth.group(pushes, [2, 4], [approval])
    assert [backup.is_approved for backup in made] == approved


# --- Larger ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("taken", "blamed"),
    [
        ((5000, 10, 20, 10_001), 10_001),  # more than twice the first one
        ((5000, 10, 20, 9_999), 0),
        ((200, 10, 20, 401), 401),
        ((200, 10, 20, 400), 0),
        ((1, 1, 1, 100), 0),  # 1 % of the store is nobody's concern
        ((1, 1, 1, 101), 101),
        ((1, 101, 102), 203),  # what is blamed is no yardstick for the next
        ((9000,), 0),  # a first backup may take what there is
        ((), 0),
    ],
)
def test_larger_is_twice_the_largest_and_a_share_of_the_store(
    taken: tuple[int, ...], blamed: int
) -> None:
    verdict = judge(backups(*taken))
    assert verdict.blamed == Taken(blamed)
    assert (verdict.blamed_since is not None) == bool(blamed)


def test_only_the_last_ten_count() -> None:
    assert judge(backups(5000, *[10] * 9, 150)).blamed == Taken(0)
    assert judge(backups(5000, *[10] * 10, 150)).blamed == Taken(150)


def test_metadata_is_judged_by_itself() -> None:
    made = backups(5000, 10, 10)
    made.append(Backup(99.5 * DAY, is_approved=False, taken=Taken(10, 11)))
    assert judge(made).blamed == Taken(10, 11)


def test_approval_ends_the_blame_and_sets_the_new_measure() -> None:
    made = backups(200, 10, 2000, 3000)
    assert judge(made).blamed == Taken(5000)
    made[2].is_approved = True
    assert judge(made).blamed == Taken(0)


def test_after_thirty_days_it_is_how_things_are() -> None:
    assert judge(backups(200, 10, 2000, last_day=70)).blamed == Taken(2000)
    assert judge(backups(200, 10, 2000, last_day=69)).blamed == Taken(0)


@pytest.mark.parametrize(
    ("pushes", "blamed"),
    [
        ([(60, 60.1, 1), (99, 99.1, 500)], 501),  # began small, went on much later
        ([(60, 98, 500)], 500),  # one push that was held open
        ([(60, 60.1, 500), (99, 99.1, 1)], 0),  # known for so long, and goes on
        ([(60, None, 500), (62, 62.1, 1)], 0),  # cut off by a crash
        ([(60, None, 500)], 500),  # under way
    ],
)
def test_thirty_days_begin_when_it_became_larger(
    pushes: list[tuple[float, float | None, int]], blamed: int
) -> None:
    """Else a client could begin early, and have nobody told before it is too late."""
    sent = [
        Push(
            began * DAY,
            Taken(size),
            ended=math.inf if ended is None else ended * DAY,
        )
        for began, ended, size in [(40, 40.1, 10), (41, 41.1, 10), *pushes]
    ]
    ends = [40.5 * DAY, 41.5 * DAY]
    assert judge(growth.group(sent, ends, [])).blamed == Taken(blamed)


def test_smaller_counts_from_the_end_of_the_backup() -> None:
    usual = [Push(d * DAY, Taken(), 1000, ended=d * DAY) for d in (40, 41, 42)]
    odd = [Push(60 * DAY, Taken(), ended=60 * DAY)]
    odd.append(Push(99 * DAY, Taken(), 10, ended=99 * DAY))
    ends = [40.5 * DAY, 41.5 * DAY, 42.5 * DAY]
    assert judge(growth.group([*usual, *odd], ends, [])).shrinkage is not None


def test_a_first_backup_that_had_to_be_stopped_is_blamed() -> None:
    (first,) = backups(9000)
    first.was_stopped = True
    assert judge([first]).blamed == Taken(9000)


def test_without_the_beginning_of_a_history_it_takes_three() -> None:
    older = 1 * DAY  # a snapshot from before the ledger
    assert judge(backups(10, 10, 5000), older).blamed == Taken(0)
    assert judge(backups(10, 10, 10, 5000), older).blamed == Taken(5000)
    # The snapshot of the first backup's own minute.
    assert judge(backups(10, 5000), 98 * DAY - 30).blamed == Taken(5000)
    assert judge(backups(10, 5000), 98.5 * DAY).blamed == Taken(5000)


# --- Allowance -------------------------------------------------------------------


def allowance(
    made: list[Backup], current: Backup | None, oldest: float | None = None
) -> growth.Allowance | None:
    return growth.allowance(made, current, NOW, STORE, RULES, oldest)


def test_allowance_counts_what_was_taken_before_the_line_broke() -> None:
    current = Backup(NOW, is_approved=False, taken=Taken(300))
    found = allowance(backups(200, 10, 10), current)
    assert found is not None
    assert not found.is_exceeded_by(Taken(100))
    assert found.is_exceeded_by(Taken(101))
    assert found.is_exceeded_by(Taken(0, 11))


def test_no_allowance_where_nothing_is_known_or_all_is_approved() -> None:
    approved = Backup(NOW, is_approved=True)
    assert allowance(backups(200, 10, 10), approved) is None
    new = Backup(NOW, is_approved=False)
    assert allowance([], new, oldest=1 * DAY) is None  # the ledger was lost
    assert allowance(backups(10, 10), new, oldest=1 * DAY) is None
    first = allowance([], new)
    assert first is not None
    assert first.limit == Taken(100, 10)


# --- Smaller ---------------------------------------------------------------------


def trees(*names: int | None) -> list[Backup]:
    made = backups(*[0] * len(names))
    for backup, count in zip(made, names, strict=True):
        backup.names = count
    return made


@pytest.mark.parametrize(
    ("names", "left"),
    [
        ((1000, 1100, 1200, 549), 549),
        ((1000, 1100, 1200, 550), None),
        ((1000, 3, 1100, 1200, 9), 9),  # an odd one among them says nothing
        ((1000, 1100, 499), None),  # three at least
        ((1000, 1100, 1200, None), None),
        ((1000, 1100, 1200, 3, 4), 3),
        ((1000, 1100, 1200, 3, 900), None),  # all is back
        ((90, 90, 90, 1), None),  # too few to say anything
    ],
)
def test_smaller_is_less_than_half_of_what_is_usual(
    names: tuple[int | None, ...], left: int | None
) -> None:
    shrinkage = judge(trees(*names)).shrinkage
    assert (shrinkage and shrinkage.names) == left


def test_smaller_ends_with_approval_or_after_thirty_days() -> None:
    made = trees(1000, 1000, 1000, 3)
    found = judge(made).shrinkage
    assert found is not None
    assert found.since == made[-1].began
    assert growth.judge(made, NOW + 30 * DAY, STORE, RULES).shrinkage is None
    made[-1].is_approved = True
    assert judge(made).shrinkage is None
