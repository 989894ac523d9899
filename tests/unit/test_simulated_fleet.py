"""A small instance of the fleet's simulation, with cases that must go wrong."""

from __future__ import annotations

import pytest

from byteback.client.transport.retry import RetryPolicy
from byteback.server.store.settings import ServerSettings
from tests.simulate_fleet import Day, Server, timer_jitter_s
from tests.simulated_history import HOSTILE, History

CLIENTS, DAYS, OUTAGE = 400, 21, 10


def lived_through(**changes: object) -> list[Day]:
    server = Server(CLIENTS, DAYS, minutes=1.0, seed=3)
    for name, value in changes.items():
        setattr(server, name, value)
    return server.run()


def test_the_timer_spreads_clients_so_that_each_gets_a_place() -> None:
    days = lived_through()
    assert sum(day.done for day in days) >= sum(day.wanted for day in days) - 5
    assert not any(day.full or day.down for day in days)
    most = ServerSettings().max_transfers
    assert max(max(day.running.values()) for day in days) <= most


def test_the_same_seed_is_the_same_year() -> None:
    assert lived_through() == lived_through()
    assert lived_through() != lived_through(seed=4)


def test_without_the_timers_delay_they_come_as_a_herd() -> None:
    """The simulation must see what the delay is for."""
    herd = lived_through(jitter_s=60.0)
    assert timer_jitter_s() >= 3600
    assert sum(day.full for day in herd) > 0.1 * sum(day.wanted for day in herd)


def test_further_attempts_help_a_herd() -> None:
    few = sum(day.full for day in lived_through(jitter_s=60.0))
    many = lived_through(jitter_s=60.0, policy=RetryPolicy(number=9))
    assert sum(day.full for day in many) < few / 2


def test_a_day_without_the_server_is_made_up_for_by_the_next() -> None:
    days = lived_through(outage=OUTAGE)
    before, missed, after = days[OUTAGE - 1 : OUTAGE + 2]
    assert missed.done == 0
    assert missed.down == missed.wanted
    assert after.done >= after.wanted - 5, "nothing is left of the outage"
    assert after.full == 0
    # None that is always on becomes stale for one night, or for its clients' own.
    assert after.stale == after.stale_for_nothing
    assert max(after.waiting.values()) <= max(before.waiting.values()) + 20


def test_a_night_without_power_brings_no_herd() -> None:
    """The timers of machines that boot all at once begin then, each with its delay."""
    cut = lived_through(power_cut=OUTAGE)[OUTAGE]
    assert cut.full == 0
    assert cut.done >= cut.wanted - 5


def test_weekends_off_are_called_stale() -> None:
    """Which expect_hours is for; see docs/fleet.md."""
    days = lived_through()
    sundays = [day for at, day in enumerate(days) if at % 7 == 6 and at > 7]
    assert all(day.stale_for_nothing > 0 for day in sundays)
    assert all(day.stale == day.stale_for_nothing for day in days)


@pytest.fixture(scope="module")
def history() -> History:
    made = History(hosts=30, days=200, room=1200)
    made.run()
    return made


def test_rubbish_costs_no_other_client_its_history(history: History) -> None:
    assert history.blamed == {HOSTILE}
    assert history.rubbish > 0.05 * history.room
    assert history.held_days > 0
    assert history.reach_after >= history.reach_before


def test_rubbish_would_cost_history_without_the_judgement(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(History, "_judge", lambda *_: 0)
    unjudged = History(hosts=30, days=200, room=1200)
    unjudged.run()
    assert unjudged.held_days == 0
    assert unjudged.deleted > history.deleted
