"""The page for browsers: whole, small, and closed to what names may hold."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("jinja2", reason="the page needs Jinja2")

from byteback.errors import UsageError
from byteback.model import charts, notification
from byteback.model.status import (
    Alarm,
    Backup,
    Client,
    FreeReading,
    Level,
    Report,
    Result,
    Snapshots,
    StoreState,
)
from byteback.server.status import page, publish

NOW = 1_795_900_000.0
DAY = 86400.0
HOSTILE = "x\"><script>alert(1)</script>'&amp;\x1b[2J\udcff"


def client(name: str, number: int = 40) -> Client:
    backups = tuple(
        Backup(
            NOW - n * DAY,
            NOW - n * DAY + 300,
            Result.FAILED if n == 3 else Result.WHOLE,
            n * 1000,
            n * 1000,
            n,
            n,
            HOSTILE if name == HOSTILE else "2026-11-28T02:30+0000",
        )
        for n in reversed(range(1, number + 1))
    )
    times = tuple(backup.started for backup in backups)
    return Client(name, backups, Snapshots(number, times[0], times[-1], times))


def report(*clients: Client, alarms: tuple[Alarm, ...] = ()) -> Report:
    store = StoreState(free_bytes=1 << 38, total_bytes=1 << 42)
    return Report("vault", "1.2.3", NOW, store, clients, alarms)


def alarm(name: str, kind: str = "stale") -> Alarm:
    return Alarm(name, kind, Level.CRITICAL, f"{name} is <b>old</b>", "do it")


def rendered(*clients: Client, alarms: tuple[Alarm, ...] = ()) -> dict[str, str]:
    readings = [FreeReading(NOW - n * DAY, n << 30, 1 << 42) for n in range(300, 0, -1)]
    files = page.render(report(*clients, alarms=alarms), readings)
    return {file.name: file.content.decode() for file in files}


class Elements(HTMLParser):
    """All tags of a document, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_a_file_for_each_order_and_each_client() -> None:
    files = rendered(client("web"), client("db"))
    assert {name for name in files if "/" not in name} == {
        name for name, _ in page.ORDERS.values()
    }
    assert {"client/web.html", "client/db.html"} <= set(files)
    for name, text in files.items():
        for _, attributes in Elements(text).found:
            href = attributes.get("href")
            if href is not None and not href.startswith("#"):
                target = (Path(name).parent / href).as_posix()
                assert target.removeprefix("client/../") in files, (name, href)


def test_names_cannot_leave_their_place() -> None:
    texts = rendered(client(HOSTILE), alarms=(alarm(HOSTILE), alarm("", HOSTILE)))
    assert len(texts) == len(page.ORDERS) + 1
    for name, text in texts.items():
        assert re.fullmatch(r"[a-z-]+\.html|client/~[0-9a-f]{64}\.html", name)
        tags = {tag for tag, _ in Elements(text).found}
        assert not tags & {"script", "img", "iframe", "link", "object"}
        for tag, attributes in Elements(text).found:
            assert tag != "b" or not attributes
            assert not any(key.startswith("on") for key in attributes)
            assert "style" not in attributes, "the policy forbids style attributes"
        assert "\x1b" not in text


def test_the_policy_allows_the_style_sheet_and_nothing_else() -> None:
    for text in rendered(client("web")).values():
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
        style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
        assert policy is not None
        assert style is not None
        digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
        assert "default-src 'none'" in policy[1]
        assert f"style-src 'sha256-{digest}'" in policy[1]
        assert "unsafe" not in policy[1]
        assert not re.search(r"(src|href)=.https?:|url\(|@import", text)


def test_a_thousand_clients_fit_in_a_megabyte() -> None:
    clients = [client(f"host{n:04}.example.net") for n in range(1000)]
    made = page.render(report(*clients, alarms=tuple(map(alarm_of, clients))), [])
    began = time.process_time()
    index = next(iter(made))
    assert index.name == "index.html"
    assert len(index.content) < 1_000_000
    assert time.process_time() - began < 2


def alarm_of(one: Client) -> Alarm:
    return alarm(one.name)


def test_a_storm_of_alarms_is_folded_away() -> None:
    clients = [client(f"h{n}", 3) for n in range(20)]
    index = rendered(*clients, alarms=tuple(map(alarm_of, clients)))["index.html"]
    assert index.count("<details>") == 1
    assert "20 clients: stale" in index
    assert "20 of 20 clients need attention." in index


def test_all_is_well_is_said() -> None:
    index = rendered(client("web"))["index.html"]
    assert "All backups are well: 1 client." in index
    assert "What is wrong" not in index


def test_strips_and_bars_show_what_is_there() -> None:
    today = page._day(NOW)
    days = page._days([NOW - DAY, NOW - 2 * DAY, NOW - 5 * DAY])
    strip = charts.draw_strip(days, today, 7, 8)
    assert (strip.present, strip.path) == (3, "M1 0h1v8h-1zM4 0h2v8h-2z")
    bars = charts.draw_bars(
        [(10.0, True), (None, True), (5.0, False)], height=40, least_width=5
    )
    assert bars == ("M2 40v-40h.8v40z", "M4 40v-20h.8v20z", 5)
    curve = charts.draw_curve(
        [(0, 1.0), (0.1, 0.5), (10, 0.25)], since=0, until=10, top=1, width=10, height=8
    )
    assert curve.line == "M0 4L10 6"


def test_only_own_files_are_replaced_and_removed(tmp_path: Path) -> None:
    files = list(page.render(report(client("web"), client("db")), []))
    publish.write_page(tmp_path, files)
    own = tmp_path / "client" / "own.html"
    own.write_text("<p>an administrator's</p>")
    (tmp_path / "client" / "link.html").symlink_to(tmp_path / "client" / "db.html")
    index = tmp_path / "index.html"
    index.unlink()
    outside = tmp_path / "outside"
    outside.write_text("precious")
    index.symlink_to(outside)
    publish.write_page(tmp_path, list(page.render(report(client("web")), [])))
    assert sorted(path.name for path in (tmp_path / "client").iterdir()) == [
        *("link.html", "own.html", "web.html")
    ]
    assert outside.read_text() == "precious"
    assert not index.is_symlink()
    assert index.stat().st_mode & 0o777 == 0o644
    with pytest.raises(UsageError, match="not a directory"):
        publish.write_page(outside, files)


def test_changes_are_told_once_and_lasting_alarms_once_a_week() -> None:
    stale = alarm("web")
    first = notification.compare([stale, stale], {}, NOW)
    assert first.begun == (stale,)
    again = notification.compare([stale], first.known, NOW + 3600)
    assert again.is_empty
    week = notification.compare([stale], again.known, NOW + 7 * DAY)
    assert [one for one, _ in week.lasting] == [stale]
    assert notification.compare([stale], week.known, NOW + 7.1 * DAY).is_empty
    over = notification.compare([], week.known, NOW + 8 * DAY)
    assert [key for key, _ in over.ended] == [("web", "stale")]
    assert over.known == {}
    text = notification.format_body(over, "vault", NOW + 8 * DAY)
    assert "web: stale, after 8 days" in text
    assert notification.format_subject(over, "vault") == "byteback on vault: 1 over"


def test_a_storm_is_one_message() -> None:
    storm = [alarm(f"h{n}") for n in range(300)]
    change = notification.compare(storm, {}, NOW)
    subject = notification.format_subject(change, "vault")
    assert subject == "byteback on vault: 300 critical alarms"
    text = notification.format_body(change, "vault", NOW)
    assert "and 250 more" in text
    assert len(text) < 10_000


def test_a_clock_that_was_ahead_hides_no_alarm() -> None:
    stale = alarm("web")
    ahead = notification.compare([stale], {}, NOW + 400 * DAY)
    back = notification.compare([stale], ahead.known, NOW)
    assert [one for one, _ in back.lasting] == [stale]
    assert notification.compare([stale], back.known, NOW + 60).is_empty
