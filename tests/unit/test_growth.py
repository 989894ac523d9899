"""Backups that count as suddenly larger or smaller, and the consequences."""

from __future__ import annotations

import math

import pytest

from byteback.model import growth
from byteback.model.growth import Backup, Origin, Push, Rules, Step, Taken, Verdict

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


def judge(
    made: list[Backup], oldest: float | None = None, baseline: Taken | None = None
) -> Verdict:
    return growth.judge(made, NOW, STORE, RULES, Origin(oldest, baseline))


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


OLDER = 1 * DAY  # a snapshot from before the ledger


def test_a_history_without_its_beginning_is_judged_by_the_share_of_the_store() -> None:
    """Until it is known what is usual: else nobody could be blamed on that day."""
    assert judge(backups(5000), OLDER) == Verdict(Taken(5000), 99 * DAY, is_guess=True)
    assert judge(backups(10, 10, 5000), OLDER).blamed == Taken(5000)
    assert judge(backups(100), OLDER).blamed == Taken(0)  # 1 % of the store
    # The snapshot of the first backup's own minute.
    assert judge(backups(10, 5000), 98 * DAY - 30).blamed == Taken(5000)
    assert not judge(backups(10, 5000), 98 * DAY - 30).is_guess


@pytest.mark.parametrize(
    ("taken", "blamed"),
    [
        ((1000,), 0),  # twice what the snapshots show
        ((1001,), 1001),
        ((10, 1001), 1001),
        ((1001, 10, 10, 10), 1001),
        ((600, 10, 10, 1200), 0),  # and the recorded ones count as ever
        ((10, 10, 10, 1000), 1000),  # they are enough now
    ],
)
def test_a_baseline_stands_in_for_what_nobody_recorded(
    taken: tuple[int, ...], blamed: int
) -> None:
    verdict = judge(backups(*taken), OLDER, Taken(500))
    assert verdict.blamed == Taken(blamed)
    assert not verdict.is_guess


def test_a_baseline_has_metadata_of_its_own() -> None:
    made = [Backup(99 * DAY, is_approved=False, taken=Taken(10, 41))]
    assert judge(made, OLDER, Taken(500, 20)).blamed == Taken(10, 41)
    assert judge(made, OLDER, Taken(500, 21)).blamed == Taken(0)


@pytest.mark.parametrize(
    ("taken", "oldest", "is_needed"),
    [
        ((), None, False),  # a new host
        ((), OLDER, True),
        ((10, 10), OLDER, True),
        ((10, 10, 10), OLDER, False),
        ((5000, 5000, 5000), OLDER, True),  # what is blamed is no yardstick
        ((10, 10), 98 * DAY, False),  # recorded from its first backup on
    ],
)
def test_a_baseline_is_needed_where_too_little_is_recorded(
    taken: tuple[int, ...], oldest: float | None, is_needed: bool
) -> None:
    made = backups(*taken)
    found = growth.needs_baseline(made, NOW, STORE, RULES, Origin(oldest))
    assert found is is_needed


def test_the_largest_step_between_close_snapshots_is_usual() -> None:
    day, week = Step(DAY, Taken(5, 9)), Step(7 * DAY, Taken(100, 1))
    assert growth.largest_step([day, Step(DAY, Taken(7, 2)), week]) == Taken(7, 9)
    assert growth.largest_step([week]) == Taken(100, 1)
    assert growth.largest_step([]) == Taken()


# --- Allowance -------------------------------------------------------------------


def allowance(
    made: list[Backup],
    current: Backup | None,
    oldest: float | None = None,
    baseline: Taken | None = None,
) -> growth.Allowance | None:
    origin = Origin(oldest, baseline)
    return growth.allowance(made, current, NOW, STORE, RULES, origin)


def test_allowance_counts_what_was_taken_before_the_line_broke() -> None:
    current = Backup(NOW, is_approved=False, taken=Taken(300))
    found = allowance(backups(200, 10, 10), current)
    assert found is not None
    assert not found.is_exceeded_by(Taken(100))
    assert found.is_exceeded_by(Taken(101))
    assert found.is_exceeded_by(Taken(0, 11))


def test_no_allowance_where_all_is_approved() -> None:
    approved = Backup(NOW, is_approved=True)
    assert allowance(backups(200, 10, 10), approved) is None
    assert allowance([], approved, oldest=OLDER) is None


def test_allowance_says_what_it_is_founded_on() -> None:
    new = Backup(NOW, is_approved=False)
    first = allowance([], new)
    assert first == growth.Allowance(Taken(), Taken(100, 10), is_first=True)
    guess = allowance([], new, oldest=OLDER)  # the ledger was lost
    assert guess == growth.Allowance(Taken(), Taken(100, 10), is_guess=True)
    assert allowance(backups(10, 10), None, oldest=OLDER) == guess
    measured = allowance([], new, OLDER, Taken(300, 4))
    assert measured == growth.Allowance(Taken(), Taken(600, 10))


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
