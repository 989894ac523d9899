"""Which alarms there are, when they begin and end, and that each one is explained."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from byteback.model import alarms
from byteback.model.status import (
    DAY_S,
    HOUR_S,
    Backup,
    Client,
    PruneFault,
    Replica,
    Result,
    Snapshots,
    StoreState,
)

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()
BERLIN = ZoneInfo("Europe/Berlin")
CHECKOUT = Path(__file__).resolve().parents[2]


def backups(*ages_h: float, result: Result = Result.WHOLE) -> tuple[Backup, ...]:
    """One backup for each age in hours, each of which took five minutes."""
    ends = sorted(NOW - age_h * HOUR_S for age_h in ages_h)
    return tuple(Backup(end - 300, end, result) for end in ends)


def every(hours: float, newest_h: float, number: int = 12) -> tuple[Backup, ...]:
    return backups(*(newest_h + hours * n for n in range(number)))


def kinds(client: Client, now: float = NOW) -> list[str]:
    return [alarm.kind for alarm in alarms.client_alarms(client, now)]


@pytest.mark.parametrize(
    ("history", "expect_hours", "expected"),
    [
        # twice a day's interval and six hours are 54 hours
        (every(24, 53.9), None, []),
        (every(24, 54.1), None, ["stale"]),
        # an hourly client: never sooner than 26 hours
        (every(1, 25.9), None, []),
        (every(1, 26.1), None, ["stale"]),
        # a weekly one has two weeks and six hours
        (every(168, 341), None, []),
        (every(168, 343), None, ["stale"]),
        # one backup tells no interval: a day is taken
        (backups(53), None, []),
        (backups(55), None, ["stale"]),
        # tried twice on the first day: still a daily client
        (backups(50, 51), None, []),
        # server.toml's word
        (every(24, 30), 12, ["stale"]),
        (every(24, 400), 500, []),
        (every(24, 4000), 0, []),
        # one odd gap among ten does not change the median
        (backups(24, 48, 72, 96, 800, 824, 848, 872, 896, 920), None, []),
    ],
)
def test_a_client_is_stale_by_its_own_habit(
    history: tuple[Backup, ...], expect_hours: float | None, expected: list[str]
) -> None:
    client = Client("web", history, expect_hours=expect_hours)
    assert kinds(client) == expected
    due = alarms.stale_at(client)
    assert (due is not None and due < NOW) is bool(expected)


def test_a_failed_backup_is_no_good_one() -> None:
    failed = backups(1, 2, 8, result=Result.FAILED)
    client = Client("web", (*every(24, 60), *failed))
    assert kinds(client) == ["stale", "failing"]
    assert kinds(Client("web", (*every(24, 30), *failed[:2]))) == []
    # The attempts of one backup
    attempts = backups(1, 1.5, 2, 3, result=Result.FAILED)
    assert kinds(Client("web", (*every(24, 30), *attempts))) == []


def test_an_incomplete_backup_is_good_but_not_three_times_running() -> None:
    partial = backups(1, 25, 49, result=Result.PARTIAL)
    assert kinds(Client("web", (*every(24, 73), *partial))) == ["incomplete"]
    assert kinds(Client("web", (*every(24, 49), *partial[1:]))) == []
    running = Backup(NOW - 60, None, Result.RUNNING)
    assert kinds(Client("web", (*every(24, 73), *partial, running))) == ["incomplete"]


def test_a_client_that_never_came() -> None:
    assert kinds(Client("web", enrolled=NOW - 27 * HOUR_S)) == ["never"]
    assert kinds(Client("web", enrolled=NOW - 25 * HOUR_S)) == []
    gone = Client("web", enrolled=NOW - 900 * HOUR_S, is_retired=True)
    assert kinds(gone) == []
    assert kinds(Client("web", enrolled=NOW - 900 * HOUR_S, expect_hours=0)) == []


def test_without_a_ledger_the_snapshots_tell() -> None:
    ages = tuple(NOW - hours * HOUR_S for hours in (100, 76, 52))
    times = Snapshots(len(ages), ages[0], ages[-1], ages)
    assert kinds(Client("web", snapshots=times)) == []
    assert kinds(Client("web", snapshots=times), NOW + 3 * HOUR_S) == ["stale"]
    # A ledger that began anew knows only the last failure.
    client = Client("web", backups(1, result=Result.FAILED), snapshots=times)
    assert kinds(client) == []


def test_what_else_is_wrong_with_a_client() -> None:
    client = Client("web", every(24, 1))
    assert kinds(client._replace(suddenly=("it is much larger",))) == [
        "larger-or-smaller"
    ]
    assert kinds(client._replace(clock_ahead_s=-1000.0)) == ["clock"]
    assert kinds(client._replace(clock_ahead_s=800.0)) == []
    assert kinds(client._replace(machines=2)) == ["two-machines"]
    assert kinds(client._replace(record_failed=True)) == ["record"]


HEALTHY = StoreState(
    free_bytes=10,
    total_bytes=100,
    scrub_finished=NOW - 10 * DAY_S,
    in_use_since=NOW - 300 * DAY_S,
    pruned=NOW - 300,
    sealed=NOW - 300,
    seals=True,
    oldest_snapshot=NOW - 200 * DAY_S,
)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"is_mounted": False, "is_read_only": True}, ["not-mounted"]),
        ({"is_read_only": True}, ["read-only"]),
        ({"device_errors": ("/dev/sdb: 3 write errors",)}, ["device-errors"]),
        *(({"prune_fault": fault}, ["no-room"]) for fault in PruneFault),
        ({"prune_fault": PruneFault.WAITING, "prune_fault_since": NOW - 3000}, []),
        (
            {"prune_fault": PruneFault.WAITING, "prune_fault_since": NOW - 4000},
            ["no-room"],
        ),
        ({"prune_fault": PruneFault.HELD, "prune_fault_since": NOW}, ["no-room"]),
        ({"settings_fault": "unknown key 'x'"}, ["settings"]),
        ({"clock_fault": "the clock jumped"}, ["server-clock"]),
        ({"scrub_errors": 2}, ["scrub-errors"]),
        ({"scrub_finished": NOW - 46 * DAY_S}, ["scrub-overdue"]),
        ({"scrub_finished": None}, ["scrub-overdue"]),
        ({"scrub_finished": None, "in_use_since": NOW - DAY_S}, []),
        ({"pruned": NOW - 2 * HOUR_S}, ["pruning-stopped"]),
        ({"pruned": None}, ["pruning-stopped"]),
        ({"pruned": None, "in_use_since": NOW - 3000}, []),
        ({"sealed": NOW - 2 * HOUR_S}, ["sealing-stopped"]),
        ({"sealed": NOW - 2 * HOUR_S, "seals": False}, []),
        ({"oldest_snapshot": NOW - 6 * DAY_S}, ["short-history"]),
        ({"replicas": (Replica("first", NOW, done=NOW - 25 * HOUR_S),)}, []),
        (
            {"replicas": (Replica("first", NOW, done=NOW - 27 * HOUR_S),)},
            ["replica-behind"],
        ),
        (
            {"replicas": (Replica("first", NOW, began=NOW - 27 * HOUR_S),)},
            ["replica-behind"],
        ),
        (
            {"replicas": (Replica("first", NOW, done=NOW, problems=("no room",)),)},
            ["replica-refused"],
        ),
        ({"oldest_snapshot": NOW - DAY_S, "in_use_since": NOW - DAY_S}, []),
    ],
)
def test_what_is_wrong_with_the_store(
    change: dict[str, object], expected: list[str]
) -> None:
    store = HEALTHY._replace(**change)  # type: ignore[arg-type] # one of each type
    assert [alarm.kind for alarm in alarms.store_alarms(store, NOW)] == expected


@pytest.mark.parametrize(
    ("fault", "message", "command"),
    [
        ("clock", "nothing is deleted by a clock", "byteback-prune --prune --confirm-"),
        ("held", "suddenly different", "byteback-prune --approve CLIENT"),
        (
            "nothing",
            "younger than a week or the newest",
            "byteback-prune --prune-force",
        ),
        ("sealed", "only root can delete what is left", "byteback-setup-server"),
        (
            "failed",
            "snapshots could not be deleted",
            "byteback-prune --prune --verbose",
        ),
        ("waiting", "has not given back its room", "btrfs balance status"),
    ],
)
def test_no_room_says_why_and_what_to_do(
    fault: str, message: str, command: str
) -> None:
    store = HEALTHY._replace(prune_fault=PruneFault(fault))
    (alarm,) = alarms.store_alarms(store, NOW)
    assert alarm.message.startswith("free space is short, and ")
    assert message in alarm.message
    assert command in alarm.hint


def test_a_year_with_two_changes_of_the_clock() -> None:
    """Nightly at 02:30 local time with jitter: no alarm, but for the real outage."""
    ends: list[float] = []
    alarm_days = []
    for day in range(366):
        local = datetime(2026, 1, 1, 2, 30, tzinfo=BERLIN) + timedelta(days=day)
        jitter_s = (day * 7919) % 5400
        is_away = 200 <= day < 214  # a fortnight's holiday
        end = local.astimezone(UTC).timestamp() + jitter_s
        if not is_away:
            ends.append(end)
        client = Client(
            "laptop", tuple(Backup(at - 300, at, Result.WHOLE) for at in ends[-30:])
        )
        if kinds(client, end + 20 * HOUR_S):
            alarm_days.append(day)
    # The evening after the second missed night is 54 hours after the last backup.
    assert alarm_days == list(range(201, 214))


def test_a_weekly_client_all_year_and_the_week_that_it_misses() -> None:
    stale_hours = 0
    ends = [NOW + week * 7 * DAY_S for week in range(52) if week not in (30, 31)]
    for hour in range(52 * 7 * 24):
        now = NOW + hour * HOUR_S
        past = tuple(Backup(at - 300, at, Result.WHOLE) for at in ends if at <= now)
        stale_hours += "stale" in kinds(Client("archive", past), now)
    # A new weekly client passes for a daily one until its second backup. Later it is
    # away for three weeks, of which two weeks and six hours are allowed.
    assert stale_hours == (7 * 24 - 54 - 1) + (7 * 24 - 6 - 1)


def test_ages_read_well() -> None:
    assert [alarms.format_age(s) for s in (5, 60, 7100, 7200, 26 * HOUR_S)] == [
        *("less than a minute", "1 minute", "118 minutes", "2 hours", "26 hours"),
    ]
    assert alarms.format_age(3 * DAY_S + 5) == "3 days"
