"""A clock is believed by what else tells the time, and after a day by itself."""

from __future__ import annotations

import pytest

from byteback.model.clock_jump import (
    DAY_S,
    HOUR_S,
    Reading,
    Record,
    confirm,
    format_record,
    judge,
    parse_record,
)

NOW = 1_795_000_000.0
YEAR_S = 365 * DAY_S
START = Reading(NOW, 1000.0, "boot")
TRUSTED = Record(START)


def later(seconds: float, *, jump: float = 0.0, boot: str = "boot") -> Reading:
    """The clock after so many seconds, wrong by ``jump``."""
    uptime = START.uptime + seconds if boot == "boot" else 10.0
    return Reading(NOW + seconds + jump, uptime, boot)


@pytest.mark.parametrize("seconds", [0, 300, HOUR_S, 30 * DAY_S])
def test_a_clock_that_goes_with_the_machine_is_right(seconds: float) -> None:
    found = judge(TRUSTED, later(seconds))
    assert found.jump_s is None
    assert found.record == (TRUSTED if seconds < HOUR_S else Record(later(seconds)))


@pytest.mark.parametrize("jump", [YEAR_S, -YEAR_S, 1.1 * DAY_S, -1.1 * DAY_S])
def test_a_jump_within_one_start_is_seen(jump: float) -> None:
    found = judge(TRUSTED, later(600, jump=jump))
    assert found.jump_s == pytest.approx(jump)
    assert found.record.trusted == START
    # Set right, it is right at once.
    again = judge(found.record, later(900))
    assert again.jump_s is None
    assert again.record.doubted is None


@pytest.mark.parametrize("jump", [0.9 * DAY_S, -0.9 * DAY_S, 60])
def test_a_correction_is_no_jump(jump: float) -> None:
    assert judge(TRUSTED, later(600, jump=jump)).jump_s is None


def test_a_day_of_going_evenly_makes_it_right() -> None:
    record = TRUSTED
    for hour in range(25):
        found = judge(record, later(HOUR_S * hour, jump=YEAR_S))
        assert (found.jump_s is None) == (hour >= 24), hour
        record = found.record
    assert record == Record(later(24 * HOUR_S, jump=YEAR_S))
    # Back again is another jump.
    assert judge(record, later(25 * HOUR_S)).jump_s == pytest.approx(-YEAR_S)


def test_another_jump_begins_the_day_anew() -> None:
    record = judge(TRUSTED, later(0, jump=YEAR_S)).record
    record = judge(record, later(20 * HOUR_S, jump=YEAR_S)).record
    assert record.doubted_s == 20 * HOUR_S
    record = judge(record, later(21 * HOUR_S, jump=2 * YEAR_S)).record
    assert record.doubted_s == 0
    assert judge(record, later(30 * HOUR_S, jump=2 * YEAR_S)).jump_s is not None


def test_another_start_counts_from_the_last_look() -> None:
    assert judge(TRUSTED, later(12 * HOUR_S, boot="other")).jump_s is None
    found = judge(TRUSTED, later(3 * DAY_S, boot="other"))
    assert found.jump_s == 3 * DAY_S
    # Off for an hour in the day after which it is believed.
    assert found.record.doubted is not None
    then = found.record.doubted._replace(wall=NOW + 3 * DAY_S + HOUR_S, boot="third")
    assert judge(found.record, then).record.doubted_s == HOUR_S
    then = then._replace(wall=NOW + YEAR_S)
    assert judge(found.record, then).record.doubted_s == 0


def test_a_container_that_was_started_anew_is_another_start() -> None:
    """Its kernel is the same one, its uptime begins at nothing."""
    again = Reading(NOW + 600, 5.0, "boot")
    assert judge(Record(Reading(NOW, 9 * DAY_S, "boot")), again).jump_s is None


def test_without_a_reading_the_newest_thing_in_the_store_tells() -> None:
    assert judge(Record(), START, [NOW - YEAR_S, NOW - HOUR_S]).jump_s is None
    assert judge(Record(), START, [NOW - YEAR_S, NOW - 9 * DAY_S]).jump_s == 9 * DAY_S
    assert judge(Record(), START).jump_s is None
    # What is written meanwhile is dated by the clock that is in doubt.
    record = judge(Record(), START, [NOW - YEAR_S]).record
    assert judge(record, later(600), [NOW + 300]).jump_s == YEAR_S
    # What a wrong clock dated ahead once says nothing.
    assert judge(Record(), START, [NOW + YEAR_S]).jump_s is None
    assert judge(Record(), START, [NOW + YEAR_S, NOW - 9 * DAY_S]).jump_s == 9 * DAY_S


def test_a_confirmed_clock_is_right() -> None:
    doubted = judge(TRUSTED, later(0, jump=YEAR_S)).record
    record = confirm(doubted, later(60, jump=YEAR_S))
    assert judge(record, later(600, jump=YEAR_S)).jump_s is None


@pytest.mark.parametrize("jump", [0.0, YEAR_S])
def test_a_record_is_read_back(jump: float) -> None:
    record = judge(TRUSTED, later(7200, jump=jump)).record
    assert parse_record(format_record(record)) == record


@pytest.mark.parametrize(
    "text", ["", "trusted", "trusted x y z", "trusted 1", "what 1 2 b", "evenly", "\0"]
)
def test_a_damaged_record_is_none(text: str) -> None:
    assert parse_record(text).trusted is None
