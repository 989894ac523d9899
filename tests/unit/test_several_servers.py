"""Reports of several servers become one, whatever a server writes."""

from __future__ import annotations

import json
from datetime import UTC
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteback.errors import UsageError
from byteback.model import metrics, several_servers, status_text
from byteback.model.status import (
    Alarm,
    Backup,
    Client,
    Level,
    Report,
    Result,
    Snapshots,
    StoreState,
)
from byteback.server.status import page, reported

NOW = 1_800_000_000.0
HOUR = 3600.0
LAST = Backup(NOW - 2 * HOUR, NOW - HOUR, Result.WHOLE, received=5 << 20)
WEB = Client(
    "web",
    (LAST,),
    Snapshots(40, NOW - 400 * 86400, NOW - HOUR),
    current_bytes=7 << 30,
    history_bytes=1 << 30,
)
STALE = Alarm("db", "stale", Level.WARNING, "no backup for 3 days", "look at it")
ROOM = Alarm("", "no-room", Level.CRITICAL, "there is no room", "make room")


def report(name: str, *alarms: Alarm, at: float = NOW - 600) -> Report:
    store = StoreState(free_bytes=1 << 40, total_bytes=4 << 40)
    return Report(name, "1.0.0", at, store, (WEB, Client("db")), alarms)


def told(*reports: Report) -> Report:
    """What is read of what the servers print."""
    texts = [metrics.format_json(each) for each in reports]
    return several_servers.merge([*map(several_servers.read_report, texts)], NOW)


def test_clients_go_by_their_server() -> None:
    both = told(report("one"), report("two", STALE, ROOM))
    assert [client.name for client in both.clients] == [
        *("one/web", "one/db", "two/web", "two/db"),
    ]
    assert [(alarm.client, alarm.kind) for alarm in both.alarms] == [
        *(("two/db", "stale"), ("two/", "no-room")),
    ]
    assert (both.store.free_bytes, both.store.total_bytes) == (2 << 40, 8 << 40)
    web = both.clients[0]
    assert web.newest_good == WEB.newest_good
    assert web.snapshots[:2] == WEB.snapshots[:2]
    assert (web.current_bytes, web.history_bytes) == (7 << 30, 1 << 30)
    assert web.backups[-1].received == 5 << 20
    assert web.backups[-1].duration_s == HOUR


def test_the_next_backup_is_the_servers_judgement() -> None:
    weekly = Client("w", (LAST,), WEB.snapshots, expect_hours=200.0)
    one = Report("one", "1.0.0", NOW, StoreState(), (weekly,), ())
    due = "2027-01-23 15:00"
    assert due in status_text.format_report(one, UTC)[1]
    assert due in status_text.format_report(told(one), UTC)[1]


def test_the_table_has_the_servers() -> None:
    lines = status_text.format_report(told(report("one"), report("two", ROOM)), UTC)
    servers = lines[lines.index("") + 1 :]
    assert servers[0].split() == ["server", "told", "free", "of", "clients", "alarms"]
    assert servers[1].split()[:1] == ["one"]
    assert servers[1].endswith("25.0 %  4 TiB  2        0")
    assert servers[2].endswith("2        1")
    assert any(line.startswith("two/: critical: there is no room") for line in lines)


@pytest.mark.parametrize(
    ("at", "words"),
    [(NOW - 5 * HOUR, "is 5 hours old"), (NOW + HOUR, "is of a time to come")],
)
def test_a_server_that_does_not_tell_is_an_alarm(at: float, words: str) -> None:
    (alarm,) = told(report("one", at=at)).alarms
    assert (alarm.client, alarm.kind, alarm.level) == (
        *("one/", "report", Level.CRITICAL),
    )
    assert words in alarm.message
    assert told(report("one", at=NOW - 2 * HOUR)).alarms == ()


def test_a_check_names_the_worst() -> None:
    line, status = status_text.format_check(told(report("one"), report("two", ROOM)))
    assert status == 2
    assert line.startswith("BYTEBACK CRITICAL - two/: no-room | clients=4")


def test_the_page_is_of_all_servers() -> None:
    files = list(page.render(told(report("one"), report("two", STALE, ROOM)), []))
    assert not any(file.name.startswith("client/") for file in files)
    text = files[0].content.decode()
    assert "Backups on 2 servers" in text
    assert "1 of 2 servers needs attention. 1 of 4 clients needs attention." in text
    assert "<b>two/db</b>" in text
    assert "25.0 % of 4 TiB free, 2 clients, 2 alarms, told 10 minutes ago" in text
    assert "last 35 days" not in text
    assert "client/" not in text


def test_two_reports_of_one_server_are_refused() -> None:
    with pytest.raises(UsageError, match="two of the reports are of the server one"):
        told(report("one"), report("one"))


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "null", "{}", "1" * 5000, "[" * 100_000, "\ud800", "{"),
        json.dumps({"server": "x", "byteback": "1", "time": "1"}),
        json.dumps({"server": "x", "byteback": "1", "time": 1, "store": []}),
        metrics.format_json(report("one")).replace('"name": "web"', '"name": 7'),
        metrics.format_json(report("one", ROOM)).replace('"no-room"', "null"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UsageError, match="this is not what byteback-status --json"):
        reported.read([path], NOW)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        reported.read([tmp_path / "none"], NOW)
    with pytest.raises(UsageError, match="Is a directory"):
        reported.read([tmp_path], NOW)


@pytest.mark.parametrize(
    "number",
    [10**400, -(10**400), 253402214399, 1e308],
    ids=["long", "below", "last-day", "float"],
)
def test_a_number_may_be_of_any_size(number: float) -> None:
    text = json.loads(metrics.format_json(report("one", STALE)))
    text["clients"][0] |= {"newest_good": number, "next_expected": number}
    text["store"] |= {"free_bytes": number, "oldest_snapshot": number}
    assert several_servers.read_report(json.dumps(text)).clients[0].name == "web"
    spoil(json.dumps(text))
    text["time"] = number
    with pytest.raises(UsageError, match="time is no number"):
        several_servers.read_report(json.dumps(text))


def test_a_hostile_server_writes_nothing_but_names() -> None:
    evil = "<script>x</script>\x1b]0;x\x07"
    text = json.loads(metrics.format_json(report("two", STALE)))
    text["server"] = text["clients"][0]["name"] = evil
    text["clients"][0]["newest_good"] = 1e300
    text["clients"][0]["snapshots"] = -5
    text["clients"][1]["last"] = {"started": float("nan"), "result": "whole"}
    lines = f"{evil}\nthe store: all is well"
    text["alarms"][0] |= {"client": evil, "message": lines, "level": evil}
    text["alarms"][0] |= {"kind": lines, "hint": lines}
    read = several_servers.read_report(json.dumps(text))
    merged = several_servers.merge([report("one"), read], NOW)
    for line in status_text.format_report(merged, UTC):
        assert line.isprintable()
    assert status_text.format_check(merged)[0].isprintable()
    for file in page.render(merged, []):
        assert b"<script" not in file.content
        assert b"\x1b" not in file.content


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.sampled_from(["time", "store", "clients", "alarms", "server", "byteback"]), JSON
)
def test_any_field_may_be_anything(name: str, value: object) -> None:
    text = json.loads(metrics.format_json(report("one", STALE)))
    text[name] = value
    spoil(json.dumps(text))
    text = json.loads(metrics.format_json(report("one", STALE)))
    for field in list(text["clients"][0]):
        text["clients"][0][field] = value
    spoil(json.dumps(text))


def spoil(text: str) -> None:
    """Read and show what may be no report; only a refusal is allowed."""
    try:
        merged = several_servers.merge([several_servers.read_report(text)], NOW)
    except UsageError:
        return
    status_text.format_report(merged, UTC)
    status_text.format_check(merged)
