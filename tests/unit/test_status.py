"""byteback-status, from the ledger and the store to each of its formats."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from byteback.cli import status as cli
from byteback.errors import StoreError
from byteback.model import metrics, status_text
from byteback.model.alarms import KINDS
from byteback.model.status import (
    Alarm,
    Backup,
    Client,
    Level,
    Replica,
    Report,
    Result,
    Snapshots,
    StoreState,
)
from byteback.server.accounting import ledger, ledger_file, own_word, sizes
from byteback.server.status import collect
from byteback.server.store import opening
from byteback.server.store.layout import Store

CHECKOUT = Path(__file__).resolve().parents[2]
NOW = 1_795_900_000.0
GIB = 1 << 30
LAST = Backup(NOW - 7200, NOW - 6900, Result.WHOLE, 2 * GIB, GIB, GIB, 1000, "x")
WEB = Client(
    'w"eb\n',
    (LAST,),
    Snapshots(3, NOW - 200_000, NOW - 6900),
    current_bytes=20 * GIB,
    history_bytes=5 * GIB,
)
EMPTY = Client("new")
STALE = Alarm("new", "never", Level.CRITICAL, "it has never | come", "run it")
REPORT = Report(
    "vault",
    "1.2.3",
    NOW,
    StoreState(
        free_bytes=25 * GIB, total_bytes=100 * GIB, replicas=(Replica("first", NOW),)
    ),
    (WEB, EMPTY),
    (STALE,),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    (made.state / "hosts").mkdir(parents=True)
    return made


def add_client(store: Store, name: str, *ages_h: float) -> list[str]:
    """A client with a snapshot of each age; returns their names, oldest first."""
    (store.root / name / "current").mkdir(parents=True)
    names = []
    for age_h in sorted(ages_h, reverse=True):
        moment = datetime.fromtimestamp(time.time() - age_h * 3600, UTC)
        names.append(moment.strftime("%Y-%m-%dT%H:%M+0000"))
        (store.root / name / names[-1]).mkdir()
    return names


def record(
    store: Store, client: str, age_h: float, result: str | None = "whole", **values: int
) -> None:
    """One push in the ledger that began so many hours ago and took five minutes."""
    started = time.time() - age_h * 3600
    ended = None if result is None else started + 300
    row = (client, "::1", "push", started, ended, result, values.get("taken", 0))
    with ledger_file.opened(store) as opened:
        opened.execute(
            "INSERT INTO transfer (host, address, kind, started, ended, result,"
            " data_taken) VALUES (?, ?, ?, ?, ?, ?, ?)",
            row,
        )


def record_snapshot(store: Store, client: str, name: str, size: int | None) -> None:
    made = datetime.fromisoformat(name).timestamp() + 59
    with ledger_file.opened(store) as opened:
        opened.execute(
            "INSERT INTO snapshot (host, name, made, incomplete, size)"
            " VALUES (?, ?, ?, 0, ?)",
            (client, name, made, size),
        )


def test_a_report_tells_each_client_from_the_ledger(store: Store) -> None:
    names = add_client(store, "web", 50, 26, 2)
    for age_h, name in zip((50.05, 26.05, 2.05), names, strict=True):
        record(store, "web", age_h)
        record_snapshot(store, "web", name, GIB)
    record(store, "web", 1, "failed")
    add_client(store, "new")
    report = collect.collect(store, time.time())
    new, web = report.clients
    assert (new.name, new.backups, new.newest_good) == ("new", (), None)
    assert [b.result for b in web.backups] == [*["whole"] * 3, "failed"]
    assert [b.snapshot for b in web.backups] == [*names, None]
    assert web.snapshots.number == 3
    assert web.newest_good == pytest.approx(time.time() - 2 * 3600, abs=400)
    assert report.alarms_of("web") == ()


def test_a_report_tells_what_was_compared(store: Store) -> None:
    add_client(store, "web", 50)
    for is_full in (True, False, None):
        number = ledger.begin_transfer(store, "web", "::1", "push", is_full=is_full)
        ledger.end_transfer(store, number, ledger.TransferEnd("whole", 0, 1, 1))
    (web,) = collect.collect(store, time.time()).clients
    assert [backup.is_full for backup in web.backups] == [True, False, None]


def test_what_a_record_missed_is_an_alarm_until_a_comparison_finds_nothing(
    store: Store,
) -> None:
    add_client(store, "web", 50)

    def is_alarm(missed: int | None) -> bool:
        ledger.begin_transfer(store, "web", "::1", "push", is_full=True)
        if missed is not None:
            own_word.note_missed(store, "web", missed)
        found = collect.collect(store, time.time()).alarms_of("web")
        return "record" in {alarm.kind for alarm in found}

    assert [is_alarm(missed) for missed in (None, 3, None, 0, None)] == [
        *(False, True, True, False, False)
    ]


def test_a_clients_clock_that_is_wrong_is_an_alarm_until_it_is_right(
    store: Store,
) -> None:
    add_client(store, "web", 50)

    def is_alarm(*ahead_s: int) -> bool:
        ledger.begin_transfer(store, "web", "::1", "push")
        for seconds in ahead_s:
            own_word.note_clock(store, "web", seconds)
        found = collect.collect(store, time.time()).alarms_of("web")
        return "clock" in {alarm.kind for alarm in found}

    told: list[tuple[int, ...]] = [(2,), (-1000,), (), (800,), (10**15,), (3,)]
    assert [is_alarm(*ahead_s) for ahead_s in told] == [
        *(False, True, True, False, True, False)
    ]
    with ledger_file.opened(store) as opened:
        noted = opened.execute("SELECT clock_ahead FROM transfer ORDER BY id")
        # Two clocks that are right are not worth a word.
        assert [row[0] for row in noted] == [None, -1000, None, 800, 10**15, 3]


def test_without_a_ledger_the_snapshots_tell(store: Store) -> None:
    add_client(store, "web", 124, 100, 76)
    for content in (None, b"rubbish" * 1000):
        if content is not None:
            ledger_file.path(store).write_bytes(content)
        report = collect.collect(store, time.time())
        assert [alarm.kind for alarm in report.alarms_of("web")] == ["stale"]
        assert report.clients[0].newest_good == pytest.approx(
            time.time() - 76 * 3600, abs=100
        )


def test_a_history_without_a_ledger_names_the_snapshots(store: Store) -> None:
    add_client(store, "web", 124, 100, 76)
    names = [snapshot.name for snapshot in store.snapshots("web")]
    (client,) = collect.collect(store, NOW, all_times=True).clients
    header, *rows = status_text.format_history(client, UTC)
    assert header.split()[-1] == "snapshot"
    assert [row.split() for row in rows] == [["-"] * 7 + [name] for name in names]


def test_a_history_has_each_snapshot_once(store: Store) -> None:
    add_client(store, "web", 124, 100, 76)
    names = [snapshot.name for snapshot in store.snapshots("web")]
    times = [snapshot.time.timestamp() for snapshot in store.snapshots("web")]
    known = Backup(times[1] - 60, times[1], Result.WHOLE, snapshot=names[1])
    (client,) = collect.collect(store, NOW, all_times=True).clients
    rows = status_text.format_history(client._replace(backups=(known,)), UTC)[1:]
    assert [row.split()[-1] for row in rows] == names
    assert "whole" in rows[1]


def test_a_crash_is_a_failure_and_a_running_transfer_is_none(store: Store) -> None:
    add_client(store, "web", 2)
    record(store, "web", 3, None)
    record(store, "web", 2)
    record(store, "web", 1, None)
    report = collect.collect(store, time.time())
    assert [b.result for b in report.clients[0].backups] == [
        *("failed", "whole", "running")
    ]


def test_a_client_never_heard_of_is_an_alarm_after_a_day(store: Store) -> None:
    add_client(store, "new")
    assert collect.collect(store, time.time()).alarms_of("new") == ()
    day = time.time() - 27 * 3600
    os.utime(store.root / "new", (day, day))
    alarms = collect.collect(store, time.time()).alarms_of("new")
    assert [alarm.kind for alarm in alarms] == ["never"]


def test_sizes_come_from_what_was_measured(store: Store) -> None:
    names = add_client(store, "web", 98, 74, 50, 26, 2)
    taken = (20 * GIB, GIB, 2 * GIB, 3 * GIB, GIB)
    sizes_ = (20 * GIB, 20 * GIB, 20 * GIB, 21 * GIB, 21 * GIB)
    for name, age_h, took, size in zip(
        names, (98.05, 74.05, 50.05, 26.05, 2.05), taken, sizes_, strict=True
    ):
        record(store, "web", age_h, taken=took)
        record_snapshot(store, "web", name, size)
    (web,) = collect.collect(store, time.time()).clients
    assert web.current_bytes == 21 * GIB
    # 7 GiB were taken since the oldest snapshot, of which current keeps one.
    assert web.history_bytes == 6 * GIB
    expected = sizes.expected_from_each(store, "web", names)
    assert [expected[name] // GIB for name in names] == [1, 1, 2, 1, 0]
    # Without the second snapshot, what it brought counts for the third.
    fewer = [names[0], *names[2:]]
    assert sizes.expected_from_each(store, "web", fewer)[names[0]] == 3 * GIB


def test_one_snapshot_gives_nothing_back(store: Store) -> None:
    """Its push may have begun in the minute that its name tells."""
    (name,) = add_client(store, "web", 2)
    minute = datetime.fromisoformat(name).timestamp()
    record(store, "web", (time.time() - minute - 5) / 3600, taken=20 * GIB)
    record_snapshot(store, "web", name, 30 * GIB)
    (web,) = collect.collect(store, time.time()).clients
    assert (web.current_bytes, web.history_bytes) == (30 * GIB, 0)


def test_deletions_correct_the_estimates(store: Store) -> None:
    names = add_client(store, "web", 50, 2)
    for name, age_h in zip(names, (50.05, 2.05), strict=True):
        record(store, "web", age_h, taken=4 * GIB)
        record_snapshot(store, "web", name, None)
    assert sizes.expected_from_each(store, "web", names)[names[0]] == 4 * GIB
    with ledger_file.opened(store) as opened:
        opened.executemany(
            "INSERT INTO deletion (host, name, time, expected, freed)"
            " VALUES ('web', 'x', 0, ?, ?)",
            [(GIB, GIB // 2)] * 3,
        )
    assert sizes.expected_from_each(store, "web", names)[names[0]] == 2 * GIB


def test_the_table_shows_every_alarm_with_what_to_do() -> None:
    lines = status_text.format_report(REPORT, UTC)
    header, web, new, _, store, alarm, hint = lines
    assert header.split()[:3] == ["client", "newest", "ended"]
    assert web.startswith('w"eb\\n')
    assert "115 minutes ago" in web
    assert "0:05:00" in web
    assert "20 GiB" in web
    assert new.split()[0] == "new"
    assert "never" in new
    assert store == "2 clients; free: 25 GiB of 100 GiB (25.0 %)"
    assert alarm == "new: critical: it has never | come"
    assert hint == "  hint: run it"


def test_a_monitors_line_follows_its_rules() -> None:
    line, status = status_text.format_check(REPORT)
    said, bar, data = line.partition(" | ")
    assert status == 2
    assert said == "BYTEBACK CRITICAL - new: never"
    assert bar
    assert data.split()[:2] == ["clients=2", "alarms=1;;0"]
    well = Report("v", "1", NOW, StoreState(), (WEB,), ())
    assert status_text.format_check(well)[1] == 0
    warned = Alarm("x|y", "clock", Level.WARNING, "", "")
    line, status = status_text.format_check(
        Report("v", "1", NOW, StoreState(), (), (warned,))
    )
    assert (line.count("|"), status) == (1, 1)


def test_metrics_are_what_prometheus_reads() -> None:
    text = metrics.format_metrics(REPORT)
    assert 'byteback_client_size_bytes{client="w\\"eb\\n"} 21474836480\n' in text
    assert 'byteback_alarm{client="new",kind="never",level="critical"} 1\n' in text
    assert 'byteback_alarm{client="",kind="stale"} 0\n' in text
    typed = re.findall(r"^# TYPE (\S+) gauge$", text, re.MULTILINE)
    assert len(typed) == len(set(typed))
    for line in text.splitlines():
        assert line.startswith("#") or re.fullmatch(
            r'[a-z_]+(\{([a-z]+="([^"\\\n]|\\.)*",?)+\})? -?[0-9.e+]+', line
        ), line


def test_the_page_names_all_metrics_and_alarms() -> None:
    page = (CHECKOUT / "man/byteback-status.1").read_text().replace("\\-", "-")
    text = metrics.format_metrics(REPORT)
    for name in re.findall(r"^# TYPE (\S+)", text, re.MULTILINE):
        assert re.search(rf"\b{name}\b", page), name
    for kind in KINDS:
        assert f"\n.B {kind}\n" in page, kind


def names_in(value: object) -> set[str]:
    """The names of all fields in a JSON value, at any depth."""
    if isinstance(value, dict):
        return set(value).union(*map(names_in, value.values()))
    return set().union(*map(names_in, value)) if isinstance(value, list) else set()


def test_the_page_lists_the_fields_of_the_output_and_no_others() -> None:
    page = (CHECKOUT / "man/byteback-status.1").read_text()
    section = page.split("\n.SH JSON\n")[1].split("\n.SH")[0]
    listed = set()
    for macro, line in re.findall(r"^\.(BR?) (.*)$", section, re.MULTILINE):
        # In a line of .BR every second word, or "words", is bold.
        words = re.findall(r'"[^"]*"|\S+', line)
        listed |= set(words[::2] if macro == "BR" else words)
    output = json.loads(metrics.format_json(REPORT, with_backups=True))
    assert listed - {"null"} == names_in(output)


def test_json_holds_any_name(store: Store) -> None:
    fields = json.loads(metrics.format_json(REPORT))
    assert fields["clients"][0]["name"] == 'w"eb\n'
    assert fields["clients"][0]["newest_good"] == LAST.ended
    assert fields["clients"][1]["last"] is None
    assert "backups" not in fields["clients"][0]


def test_an_old_ledger_on_a_full_disc_is_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its snapshots have no size, and there is no room to add the column."""
    add_client(store, "web", 2)
    assert ledger.begin_transfer(store, "web", "::1", "push") is not None
    with ledger_file.opened(store) as opened:
        opened.execute("ALTER TABLE snapshot DROP COLUMN size")
        opened.execute("ALTER TABLE transfer DROP COLUMN is_full")
        for index in ("transfer_taken", "transfer_missed", "snapshot_size"):
            opened.execute(f"DROP INDEX {index}")
        opened.execute("DROP INDEX transfer_clock")
        opened.execute("ALTER TABLE transfer DROP COLUMN missed")
        opened.execute("ALTER TABLE transfer DROP COLUMN clock_ahead")
    record(store, "web", 2.1)
    assert collect.collect(store, time.time()).clients[0].newest_good is not None


@pytest.mark.parametrize(
    ("wanted", "word", "status"),
    [
        ((), "CRITICAL", 2),  # web has never finished a backup
        (("web",), "CRITICAL", 2),
        (("good",), "OK", 0),
        (("nosuch",), "UNKNOWN", 3),
        (("good", "nosuch"), "UNKNOWN", 3),
        (("../etc",), "UNKNOWN", 3),
    ],
)
def test_a_check_of_what_is_no_client_here_is_unknown(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    wanted: tuple[str, ...],
    word: str,
    status: int,
) -> None:
    """The Monitoring Plugins' guidelines: 3 is for an argument of no use."""
    add_client(store, "good", 2)
    (store.root / "web" / "current").mkdir(parents=True)
    os.utime(store.root / "web", (0, 0))
    monkeypatch.setattr(opening, "opened_store", lambda: contextlib.nullcontext(store))
    done = CliRunner().invoke(cli.command, ["--check", *wanted])
    assert done.output.startswith(f"BYTEBACK {word} - "), done.output
    assert done.exit_code == status


def test_a_check_without_a_store_is_critical(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise StoreError("the store is not mounted")

    monkeypatch.setattr(opening, "opened_store", missing)
    done = CliRunner().invoke(cli.command, ["--check", "web"])
    assert (done.exit_code, done.output) == (
        2,
        "BYTEBACK CRITICAL - the store is not mounted\n",
    )
