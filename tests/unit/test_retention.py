"""The order in which snapshots go, against tables made by hand and by simulation."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byteback.model import retention
from byteback.model.snapshot import (
    Snapshot,
    format_snapshot_name,
    parse_snapshot_name,
)
from tests.simulate_pruning import Simulation

NOW = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)  # a Monday


def snapshot(host: str, when: str | datetime) -> Snapshot:
    if isinstance(when, datetime):
        return Snapshot(host, when.astimezone(UTC), format_snapshot_name(when))
    full = when if "T" in when else f"{when}T12:00+0000"
    parsed = parse_snapshot_name(full)
    assert parsed is not None
    return Snapshot(host, parsed, full)


def days(places: list[retention.RankedSnapshot]) -> list[str]:
    return [f"{p.snapshot.host} {p.snapshot.name[5:10]}" for p in places]


def daily(host: str, count: int, now: datetime = NOW) -> list[Snapshot]:
    start = now - timedelta(hours=1)
    return [snapshot(host, start - timedelta(days=n)) for n in range(count)]


def plain_order(
    snapshots: list[Snapshot], now: datetime, zone: tzinfo
) -> list[Snapshot]:
    """The definition, word for word and as slow as it likes, to compare with."""
    if not snapshots:
        return []
    left = sorted(snapshots, key=lambda s: (s.host, s.name))
    left.sort(key=lambda s: s.time, reverse=True)
    hosts = list(dict.fromkeys(s.host for s in left))
    last: dict[str, datetime] = {}
    chosen: list[Snapshot] = []
    for target in retention.targets(now, zone, left[-1].time):
        for host in hosts:
            own = [s for s in left if s.host == host and s not in chosen]
            if not own:
                continue
            nearest = min(own, key=lambda s: abs(s.time - target.time))
            if host not in last or nearest.time < last[host]:
                chosen.append(nearest)
                last[host] = nearest.time
    return chosen + [s for s in left if s not in chosen]


# --- Targets ---------------------------------------------------------------------


def test_targets_are_days_then_sundays_then_every_fourth() -> None:
    oldest = datetime(2026, 8, 1, tzinfo=UTC)
    found = [t.time.strftime("%a %m-%d %H") for t in targets(NOW, UTC, oldest)]
    assert found == [
        "Mon 11-23 12",
        "Sun 11-22 12",
        "Sat 11-21 12",
        "Fri 11-20 12",
        "Thu 11-19 12",
        "Wed 11-18 12",
        "Tue 11-17 12",
        "Sun 11-15 12",
        "Sun 11-08 12",
        "Sun 11-01 12",
        "Sun 10-25 12",
        # 25 October 2026 is 741 times 28 days after 4 January 1970.
        "Sun 10-25 12",
        "Sun 09-27 12",
        "Sun 08-30 12",
        "Sun 08-02 12",
        "Sun 07-05 12",
    ]


def targets(now: datetime, zone: tzinfo, oldest: datetime) -> list[retention.Target]:
    return list(retention.targets(now, zone, oldest))


def test_a_sunday_that_is_one_of_the_seven_days_does_not_count_again() -> None:
    saturday = datetime(2026, 11, 28, 15, 0, tzinfo=UTC)  # the seven begin on Sunday 22
    sundays = targets(saturday, UTC, saturday)[7:11]
    assert [t.time.day for t in sundays] == [15, 8, 1, 25]


def test_grid_stays_put_from_week_to_week() -> None:
    oldest = datetime(2026, 1, 1, tzinfo=UTC)
    seen: set[datetime] = set()
    for week in range(30):
        now = NOW + timedelta(weeks=week)
        seen.update(t.time for t in targets(now, UTC, oldest)[11:])
    ordered = sorted(seen)
    assert {b - a for a, b in pairwise(ordered)} == {timedelta(days=28)}


def test_midday_is_wall_clock_across_summer_time() -> None:
    zone = ZoneInfo("Europe/London")
    now = datetime(2026, 10, 27, 9, 0, tzinfo=UTC)  # the clocks changed on the 25th
    hours = [t.time.hour for t in targets(now, zone, now)[:7]]
    assert hours == [12, 12, 12, 11, 11, 11, 11]


@pytest.mark.parametrize(("offset", "today"), [(14, 24), (-12, 23), (0, 23)])
def test_today_is_the_servers_day(offset: int, today: int) -> None:
    zone = timezone(timedelta(hours=offset))
    now = datetime(2026, 11, 23, 13, 0, tzinfo=UTC)
    first = targets(now, zone, now)[0].time.astimezone(zone)
    assert (first.day, first.hour) == (today, 12)


def test_targets_end_at_the_first_year() -> None:
    ancient = datetime(1, 1, 1, tzinfo=UTC)
    far_east = timezone(timedelta(hours=14))
    assert len(targets(NOW, far_east, ancient)) > 20000


# --- Order -----------------------------------------------------------------------


def test_golden_daily_history_of_one_host() -> None:
    places = retention.order_by_importance(daily("a", 60), NOW, UTC)
    assert days(places)[:17] == [
        # Taken at 14:00 each day, so that each is nearest to its own midday.
        *(f"a 11-{day}" for day in (23, 22, 21, 20, 19, 18, 17, 15)),
        "a 11-08",
        "a 11-01",
        "a 10-25",
        "a 10-24",  # the same Sunday again: the nearest that is left, and older
        "a 09-27",
        # The grid's 08-30 lies before all of them: the oldest is nearest.
        "a 09-25",
        # What no target wants, newest first.
        "a 11-16",
        "a 11-14",
        "a 11-13",
    ]
    assert places[0].reason == "nearest to midday of 2026-11-23"
    assert places[7].reason == "nearest to midday of Sunday 2026-11-15"
    assert places[11].reason == "nearest to midday of fourth Sunday 2026-10-25"
    assert places[-1] == (snapshot("a", "2026-09-26T14:00+0000"), retention.NO_TARGET)


def test_golden_two_hosts_take_turns() -> None:
    snapshots = [
        snapshot("busy", "2026-11-23T11:00+0000"),
        snapshot("busy", "2026-11-22T11:00+0000"),
        snapshot("busy", "2026-11-22T03:00+0000"),
        snapshot("gone", "2026-03-01T11:00+0000"),
        snapshot("gone", "2026-02-01T11:00+0000"),
    ]
    places = retention.order_by_importance(snapshots, NOW, UTC)
    assert [p.snapshot.path for p in places] == [
        "busy/2026-11-23T11:00+0000",
        "gone/2026-03-01T11:00+0000",
        "busy/2026-11-22T11:00+0000",
        "gone/2026-02-01T11:00+0000",
        "busy/2026-11-22T03:00+0000",
    ]


def test_nearest_that_is_newer_than_the_last_choice_gives_none() -> None:
    # Today's midday takes 06:00. For the days before, 19:00 of today is nearest, and
    # too new, until the 21st, to which the 20th is nearer.
    snapshots = [
        snapshot("a", "2026-11-23T06:00+0000"),
        snapshot("a", "2026-11-23T19:00+0000"),
        snapshot("a", "2026-11-20T12:00+0000"),
    ]
    places = retention.order_by_importance(snapshots, NOW, UTC)
    assert [p.reason.rsplit(" ", 1)[-1] for p in places] == [
        "2026-11-23",
        "2026-11-21",
        "target",
    ]


def test_of_two_equally_near_the_newer_is_chosen() -> None:
    snapshots = [
        snapshot("a", f"2026-11-23T{hour}:00+0000") for hour in ("09", "11", "13")
    ]
    first = retention.order_by_importance(snapshots, NOW, UTC)[0]
    assert first.snapshot.name == "2026-11-23T13:00+0000"


def test_a_twin_of_the_same_moment_is_not_older() -> None:
    snapshots = [
        snapshot("a", "2026-10-25T02:30+0100"),
        snapshot("a", "2026-10-25T01:30+0000"),  # the clocks had been put back
    ]
    places = retention.order_by_importance(snapshots, NOW, UTC)
    assert [p.reason == retention.NO_TARGET for p in places] == [False, True]


def test_order_by_age_is_newest_first() -> None:
    snapshots = daily("a", 5) + daily("b", 3, NOW - timedelta(hours=2))
    places = retention.order_by_age(snapshots)
    times = [p.snapshot.time for p in places]
    assert times == sorted(times, reverse=True)


def test_nothing_makes_nothing() -> None:
    assert retention.order_by_importance([], NOW, UTC) == []
    assert retention.order_by_age([]) == []
    assert retention.next_to_go([], NOW) is None
    assert retention.next_to_force([], NOW) is None


@pytest.mark.parametrize("year", [1, 1970, 2090, 9999])
def test_a_stray_year_changes_no_other_host_and_costs_little(year: int) -> None:
    usual = [s for n in range(50) for s in daily(f"h{n}", 100)]
    stray = snapshot("stray", datetime(year, 6, 1, tzinfo=UTC))
    began = time.process_time()
    places = retention.order_by_importance([*usual, stray], NOW, UTC)
    assert time.process_time() - began < 1.0
    without = retention.order_by_importance(usual, NOW, UTC)
    head = [p.snapshot for p in places if p.snapshot.host != "stray"]
    # A longer grid may only add to what was chosen; the first hundreds stay.
    assert head[:300] == [p.snapshot for p in without][:300]


def test_twenty_thousand_snapshots_take_under_half_a_second() -> None:
    snapshots = [s for n in range(200) for s in daily(f"host{n}", 100)]
    zone = ZoneInfo("Europe/London")
    best = 9.0
    for _ in range(3):  # the machine may be busy with something else
        began = time.process_time()
        places = retention.order_by_importance(snapshots, NOW, zone)
        best = min(best, time.process_time() - began)
    assert len(places) == 20000
    assert best < 0.5


HISTORIES = st.lists(
    st.builds(
        lambda host, minutes: snapshot(host, NOW - timedelta(minutes=minutes)),
        st.sampled_from("abc"),
        st.one_of(
            st.integers(-5000, 200_000).map(lambda m: m * 10),
            st.integers(0, 60).map(lambda d: d * 24 * 60 + 180),
        ),
    ),
    max_size=60,
    unique=True,
)
ZONES = st.sampled_from(
    [UTC, ZoneInfo("Europe/Berlin"), ZoneInfo("Pacific/Apia"), ZoneInfo("Asia/Kolkata")]
)


@given(HISTORIES, ZONES)
@settings(max_examples=150, deadline=None)
def test_order_is_the_definitions(history: list[Snapshot], zone: tzinfo) -> None:
    places = retention.order_by_importance(history, NOW, zone)
    assert [p.snapshot for p in places] == plain_order(history, NOW, zone)


@given(HISTORIES, ZONES)
@settings(max_examples=100, deadline=None)
def test_order_is_a_permutation_with_monotone_choices(
    history: list[Snapshot], zone: tzinfo
) -> None:
    places = retention.order_by_importance(history, NOW, zone)
    assert sorted(p.snapshot for p in places) == sorted(history)
    for host in "abc":
        own = [p for p in places if p.snapshot.host == host]
        chosen = [p.snapshot.time for p in own if p.reason != retention.NO_TARGET]
        assert chosen == sorted(set(chosen), reverse=True)
    left = [p.snapshot.time for p in places if p.reason == retention.NO_TARGET]
    assert left == sorted(left, reverse=True)


@given(HISTORIES, ZONES, st.randoms())
@settings(max_examples=50, deadline=None)
def test_order_does_not_depend_on_how_the_list_came(
    history: list[Snapshot], zone: tzinfo, random: object
) -> None:
    shuffled = list(history)
    random.shuffle(shuffled)  # type: ignore[attr-defined] # hypothesis's stand-in
    assert retention.order_by_importance(
        shuffled, NOW, zone
    ) == retention.order_by_importance(history, NOW, zone)


@given(HISTORIES)
@settings(max_examples=100, deadline=None)
def test_deleting_to_the_end_leaves_the_young_and_the_newest(
    history: list[Snapshot],
) -> None:
    left = list(history)
    while place := retention.next_to_go(
        retention.order_by_importance(left, NOW, UTC), NOW
    ):
        left.remove(place.snapshot)
    assert set(left) == set(retention.protections(history, NOW))
    assert {s.host for s in left} == {s.host for s in history}


# --- Guards ----------------------------------------------------------------------


def test_young_snapshots_stay() -> None:
    history = [snapshot("a", NOW - timedelta(days=7, minutes=-m)) for m in (-1, 0, 1)]
    history.append(snapshot("a", NOW))
    kept = retention.protections(history, NOW)
    assert [s in kept for s in history] == [False, False, True, True]


def test_newest_of_each_host_stays() -> None:
    old = [snapshot("a", "2025-01-01"), snapshot("a", "2025-01-02")]
    other = [snapshot("b", "2020-01-01")]
    assert retention.protections(old + other, NOW) == {
        old[1]: "newest of its host",
        other[0]: "newest of its host",
    }


def test_nothing_goes_while_no_snapshot_is_a_week_old() -> None:
    places = retention.order_by_age(daily("a", 7))
    assert len(places) == 7
    assert retention.next_to_go(places, NOW) is None


def test_a_snapshot_of_the_future_does_not_pose_as_the_newest() -> None:
    stray = snapshot("a", "2090-01-01")
    real = snapshot("a", "2025-01-02")
    older = snapshot("a", "2025-01-01")
    kept = retention.protections([stray, real, older], NOW)
    assert kept == {stray: "younger than 7 days", real: "newest of its host"}


def test_spared_snapshots_are_passed_over() -> None:
    history = [snapshot("a", f"2025-01-0{n}") for n in (3, 2, 1)]
    places = retention.order_by_age(history)
    assert retention.next_to_go(places, NOW) == places[2]
    assert retention.next_to_go(places, NOW, {history[2]}) == places[1]
    assert retention.next_to_go(places, NOW, set(history[1:])) is None


def test_force_takes_the_last_whatever_its_age() -> None:
    history = daily("a", 3)
    found = retention.next_to_force(retention.order_by_age(history), NOW)
    assert found is not None
    assert (found[0].snapshot, found[1]) == (history[2], False)


def test_force_takes_a_newest_only_when_nothing_else_is_left() -> None:
    fresh = daily("a", 2)
    dormant = snapshot("b", "2020-01-01")
    places = retention.order_by_age([*fresh, dormant])
    found = retention.next_to_force(places, NOW)
    assert found is not None
    assert (found[0].snapshot, found[1]) == (fresh[1], False)
    places = retention.order_by_age([fresh[0], dormant])
    found = retention.next_to_force(places, NOW)
    assert found is not None
    assert (found[0].snapshot, found[1]) == (dormant, True)


def test_force_takes_no_newest_because_the_others_cannot_go() -> None:
    history = daily("a", 3)
    other = snapshot("b", "2020-01-01")
    places = retention.order_by_age([*history, other])
    assert retention.next_to_force(places, NOW, set(history[1:])) is None


# --- A year in the life ----------------------------------------------------------


def test_a_year_of_daily_backups_on_a_fixed_disc() -> None:
    """Ten hosts and room for 150 snapshots: history thins out and never breaks off."""
    zone = ZoneInfo("Europe/London")
    store: list[Snapshot] = []
    now = datetime(2026, 1, 1, 2, 30, tzinfo=UTC)
    for day in range(365):
        now += timedelta(days=1)
        hosts = [f"h{n}" for n in range(10) if (day * 7 + n) % 11]  # some fail
        store += [
            snapshot(h, now.astimezone(zone)) for h in hosts if h != "h9" or day < 60
        ]
        while len(store) > 150:
            places = retention.order_by_importance(store, now, zone)
            place = retention.next_to_go(places, now)
            assert place is not None
            store.remove(place.snapshot)
    by_host = {h: [s for s in store if s.host == h] for h in {s.host for s in store}}
    assert len(by_host) == 10
    assert max(s.time for s in by_host["h9"]).month in {2, 3}
    for host, own in by_host.items():
        if host != "h9":
            assert sum(now - s.time < timedelta(days=7) for s in own) >= 6
            assert now - min(s.time for s in own) > timedelta(days=84)


def test_a_simulated_year_of_twenty_hosts() -> None:
    """The simulation's fast version; run by itself it takes three years of 200."""
    simulation = Simulation(hosts=20, days=365, room=800)
    simulation.run()
    assert len(simulation.ages()) == 20
    assert simulation.deleted > 5000
    assert simulation.youngest_deleted >= timedelta(days=7)
    assert simulation.tightest > 0
    assert min(simulation.ages().values()) > 84
