"""After set-up one schedule starts backups, the one that was asked for."""

from __future__ import annotations

import configparser
import re
import subprocess
from pathlib import Path

import pytest

from byteback.cli.setup_client import format_schedule
from byteback.client.setup import schedule, schedule_files
from byteback.client.setup.schedule import Schedule, ScheduleRequest, parse_wish
from byteback.client.setup.schedule_files import FAILURE, SERVICE, TIMER, Places
from byteback.errors import BytebackError, UsageError
from byteback.model.calendar import Calendar, parse_calendar
from byteback.system import crontab, host, process

PROGRAM = Path("/usr/local/bin/byteback-backup")
HALF_PAST_THREE = ScheduleRequest(at=parse_calendar("03:30"))


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """A machine without systemd running, set up from no package."""
    found = Places(
        tmp_path / "byteback",
        tmp_path / "cron.d" / "byteback-schedule",
        tmp_path / "units",
        (tmp_path / "packaged",),
    )
    for directory in (found.directory, found.own_units, *found.packaged_units):
        directory.mkdir()
    monkeypatch.setattr(crontab, "PLACES", (f"{tmp_path}/cron.d/*",))
    monkeypatch.setattr(host, "is_systemd_running", lambda: False)
    monkeypatch.setattr(host, "program_path", lambda _name: PROGRAM)
    monkeypatch.setattr(process, "has_program", lambda name: name == "cron")
    return found


@pytest.fixture
def packaged(places: Places) -> Places:
    """The same with the package's timer."""
    (places.packaged_units[0] / TIMER).touch()
    return places


def files_in(places: Places) -> set[str]:
    """Everything that was written, by its name."""
    root = places.directory.parent
    found = {path for path in root.rglob("*") if path.is_file()}
    return {str(path.relative_to(root)) for path in found} - {f"packaged/{TIMER}"}


def add_own_line(places: Places) -> Path:
    """The schedule of an administrator from before byteback brought one."""
    path = places.cron_file.with_name("byteback")
    path.parent.mkdir(exist_ok=True)
    path.write_text("23 2 * * * root byteback-backup\n")
    return path


OWN_MINUTE = 100
CALENDARS = [
    ("03:30", "*-*-* 03:30", "30 3 * * *"),
    ("3:05", "*-*-* 03:05", "5 3 * * *"),
    ("23:59", "*-*-* 23:59", "59 23 * * *"),
    ("*-*-* 1:00", "*-*-* 01:00", "0 1 * * *"),
    ("hourly", "*-*-* *:40", "40 * * * *"),
    ("daily", "*-*-* 00:40", "40 0 * * *"),
    ("weekly", "Mon *-*-* 00:40", "40 0 * * 1"),
    ("*:0/15", "*-*-* *:00,15,30,45", "0,15,30,45 * * * *"),
    ("*:00", "*-*-* *:00", "0 * * * *"),
    ("0/6:10", "*-*-* 00,06,12,18:10", "10 0,6,12,18 * * *"),
    (
        *("Mon..Fri 08..18/5:00", "Mon,Tue,Wed,Thu,Fri *-*-* 08,13,18:00"),
        "0 8,13,18 * * 1,2,3,4,5",
    ),
    ("Sat,sunday *-*-* 7,9:30", "Sat,Sun *-*-* 07,09:30", "30 7,9 * * 6,0"),
    ("Mon..Sun 4:00", "*-*-* 04:00", "0 4 * * *"),
]


@pytest.mark.parametrize(("text", "for_systemd", "for_cron"), CALENDARS)
def test_times_for_systemd_and_cron(text: str, for_systemd: str, for_cron: str) -> None:
    at = parse_wish(False, text).at
    assert at is not None
    assert at.format_systemd(OWN_MINUTE) == for_systemd
    assert at.format_cron(OWN_MINUTE) == for_cron


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("text", [row[0] for row in CALENDARS])
def test_systemd_means_the_same_by_the_words(text: str) -> None:
    """What it starts by the words as given, and by those that are written for it."""
    moments = []
    for words in (text, parse_calendar(text).format_systemd(0)):
        argv = ["systemd-analyze", "calendar", "--iterations=30", words]
        argv[2:2] = ["--base-time=2026-03-01 00:00"]
        shown = subprocess.run(argv, capture_output=True, text=True, check=True)
        moments.append(re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", shown.stdout))
    assert moments[0] == moments[1]
    assert len(moments[0]) >= 30


@pytest.mark.parametrize(
    "text",
    [
        *(
            "24:00",
            "3:60",
            "03.30",
            "0330",
            "3",
            "",
            " 3:30",
            "3:30\n",
            "٣:30",
            "-1:00",
        ),
        *(
            "minutely",
            "monthly",
            "3:30:00",
            "2026-01-01 3:30",
            "*-*-1 3:30",
            "3:30 UTC",
        ),
        *("Fri..Mon 3:00", "Mo 3:00", "Mon Tue 3:00", "3..2:00", "3/0:00", "1,:00"),
        *("Mon\t3:00", "3:00%", "3:00 #", "0:" + "0," * 100 + "0", "Mon  3:00 "),
    ],
)
def test_times_that_one_of_both_does_not_know(text: str) -> None:
    with pytest.raises(UsageError, match="no time"):
        parse_wish(False, text)


def test_an_hourly_schedule_is_written_and_kept(packaged: Places) -> None:
    hourly = ScheduleRequest(at=parse_calendar("Mon..Fri *:00"))
    told = format_schedule(schedule.arrange(hourly, packaged))
    assert "at the times Mon..Fri *:00 (cron)" in told
    again = schedule.arrange(ScheduleRequest(), packaged)
    assert again.at == parse_calendar("Mon..Fri *:00")
    assert "OnCalendar=Mon,Tue,Wed,Thu,Fri *-*-* *:00\n" in packaged.drop_in.read_text()
    job = packaged.cron_file.read_text().splitlines()[-1]
    assert job.startswith("0 * * * 1,2,3,4,5 root ")


def test_a_time_and_none_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="contradict"):
        parse_wish(True, "03:30")


def test_the_packages_schedule_needs_no_file(packaged: Places) -> None:
    assert schedule.arrange(ScheduleRequest(), packaged) == Schedule("on", "cron")
    assert files_in(packaged) == set()


def test_time_for_both_init_systems(packaged: Places) -> None:
    assert schedule.arrange(HALF_PAST_THREE, packaged).at == parse_calendar("03:30")
    assert files_in(packaged) == {
        "cron.d/byteback-schedule",
        f"units/{TIMER}.d/byteback-setup-client.conf",
    }
    drop_in = packaged.drop_in.read_text()
    assert "OnCalendar=\nOnCalendar=*-*-* 03:30\n" in drop_in
    job = packaged.cron_file.read_text().splitlines()[-1]
    assert job.startswith("30 3 * * * root [ -d /run/systemd/system ] || ")


def test_a_chosen_time_stays_until_it_is_given_up(packaged: Places) -> None:
    schedule.arrange(HALF_PAST_THREE, packaged)
    before = packaged.cron_file.stat().st_mtime_ns
    assert schedule.arrange(ScheduleRequest(), packaged).at == parse_calendar("03:30")
    assert packaged.cron_file.stat().st_mtime_ns == before
    schedule.arrange(ScheduleRequest(is_off=True), packaged)
    assert packaged.switched_off.exists()
    assert schedule.arrange(ScheduleRequest(), packaged).at == parse_calendar("03:30")
    assert not packaged.switched_off.exists()
    schedule.arrange(ScheduleRequest(at_own_time=True), packaged)
    assert files_in(packaged) == set()


def test_without_a_package_all_is_written(places: Places) -> None:
    schedule.arrange(ScheduleRequest(), places)
    assert files_in(places) == {
        "cron.d/byteback-schedule",
        f"units/{SERVICE}",
        f"units/{FAILURE}",
        f"units/{TIMER}",
    }
    assert str(PROGRAM) in (places.own_units / SERVICE).read_text()
    hour = places.cron_file.read_text().splitlines()[-1].split()[1]
    assert int(hour) < 4


def test_the_package_takes_over(places: Places) -> None:
    schedule.arrange(HALF_PAST_THREE, places)
    (places.packaged_units[0] / TIMER).touch()
    assert schedule.arrange(ScheduleRequest(), places).at == parse_calendar("03:30")
    assert f"units/{TIMER}" not in files_in(places)
    assert places.drop_in.exists()


def test_units_of_the_administrators_own_stay(places: Places) -> None:
    for name in (TIMER, SERVICE):
        (places.own_units / name).write_text("mine")
    schedule.arrange(HALF_PAST_THREE, places)
    assert {(places.own_units / name).read_text() for name in (TIMER, SERVICE)} == {
        "mine"
    }


def test_a_cron_file_of_the_administrators_own_stays(places: Places) -> None:
    places.cron_file.parent.mkdir()
    places.cron_file.write_text("# mine\n")
    with pytest.raises(BytebackError, match="in the way"):
        schedule.arrange(HALF_PAST_THREE, places)
    assert places.cron_file.read_text() == "# mine\n"


@pytest.mark.parametrize("is_packaged", [True, False])
def test_own_lines_stay_in_charge(places: Places, is_packaged: bool) -> None:
    if is_packaged:
        (places.packaged_units[0] / TIMER).touch()
    line = add_own_line(places)
    schedule.hold(ScheduleRequest(), places)
    assert schedule.arrange(ScheduleRequest(), places) == Schedule(
        "own", own_lines=[line]
    )
    assert str(line) in places.switched_off.read_text()
    assert not places.cron_file.exists()
    line.unlink()
    assert schedule.arrange(ScheduleRequest(), places).state == "on"
    assert not places.switched_off.exists()


def test_a_line_for_a_second_server_is_no_schedule(packaged: Places) -> None:
    line = add_own_line(packaged)
    line.write_text("5 6 * * * root nice byteback-backup -d other: || echo -d\n")
    assert schedule.arrange(ScheduleRequest(), packaged) == Schedule("on", "cron")


def test_a_time_that_was_asked_for_beats_own_lines(packaged: Places) -> None:
    line = add_own_line(packaged)
    schedule.hold(HALF_PAST_THREE, packaged)
    assert not packaged.switched_off.exists()
    found = schedule.arrange(HALF_PAST_THREE, packaged)
    assert found.state == "on"
    assert f"{line} starts them as well" in format_schedule(found)


def test_upgrade_gives_way_to_own_lines_alone(packaged: Places) -> None:
    assert schedule.defer_to_crontab(packaged) == []
    assert not packaged.switched_off.exists()
    line = add_own_line(packaged)
    assert schedule.defer_to_crontab(packaged) == [line]
    assert packaged.switched_off.exists()


def test_nothing_starts_before_set_up_if_none_is_wished(packaged: Places) -> None:
    schedule.hold(ScheduleRequest(), packaged)
    assert not packaged.switched_off.exists()
    schedule.hold(ScheduleRequest(is_off=True), packaged)
    assert packaged.switched_off.exists()


def test_program_at_an_odd_place_is_refused(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "program_path", lambda _name: Path("/opt/50% of it/b"))
    with pytest.raises(BytebackError, match="special"):
        schedule.arrange(ScheduleRequest(), places)


@pytest.mark.parametrize("at", [None, parse_calendar("03:30")])
def test_cron_line_runs_once_all_conditions_hold(
    tmp_path: Path, at: Calendar | None
) -> None:
    """The line as cron gives it to the shell, with paths of the test's own."""
    program = tmp_path / "byteback-backup"
    program.write_text(f"#!/bin/sh\necho ran >>{tmp_path}/log\n")
    program.chmod(0o755)
    line = schedule_files.format_cron(program, at, 100).splitlines()[-1]
    command = line.split(" root ", 1)[1].replace("/etc/byteback", str(tmp_path))
    command = command.replace("/run/systemd", f"{tmp_path}/systemd")
    assert "%" not in line

    def runs() -> bool:
        (tmp_path / "log").unlink(missing_ok=True)
        subprocess.run(["sh", "-c", command], check=True)
        return (tmp_path / "log").exists()

    assert not runs()
    (tmp_path / "destination").touch()
    assert runs()
    (tmp_path / "no-schedule").touch()
    assert not runs()
    (tmp_path / "no-schedule").unlink()
    (tmp_path / "systemd" / "system").mkdir(parents=True)
    assert not runs()


def test_both_cron_files_and_the_timer_know_the_switch() -> None:
    debian = Path(__file__).resolve().parents[2] / "debian"
    cron = (debian / "byteback.byteback-backup.cron.d").read_text()
    places = Places()
    assert f"[ -e {places.switched_off} ]" in cron
    assert f"[ -e {places.cron_file} ]" in cron
    timer = configparser.ConfigParser()
    timer.read_string(re.sub("^#.*", "", (debian / f"byteback.{TIMER}").read_text()))
    condition = timer["Unit"]["ConditionPathExists"]
    assert condition == f"!{places.switched_off}"


@pytest.mark.parametrize("state", ["on", "off", "own", "disabled", "no cron"])
def test_each_state_is_told(state: str) -> None:
    told = format_schedule(Schedule(state, "systemd", None, [Path("/etc/crontab")]))
    starts = state in {"on", "own"}
    assert ("Nothing starts backups by itself" in told) != starts
