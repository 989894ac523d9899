"""The status page: files of plain HTML and SVG, which need no script and no network.

Every name on it is hostile, and Jinja2 escapes it. A Content-Security-Policy in each
file forbids the browser everything but the file's own style sheet.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from importlib import resources
from itertools import groupby
from typing import Any, NamedTuple

from byteback.errors import NotSetUpError, escape
from byteback.model import charts
from byteback.model.alarms import format_age, next_expected, usual_interval_s
from byteback.model.size import format_count, format_size
from byteback.model.space_estimate import expected_reach_s
from byteback.model.status import (
    Alarm,
    Backup,
    Client,
    FreeReading,
    Level,
    Report,
)
from byteback.model.status_text import format_duration, format_percent
from byteback.server.status import page_words as words

STRIP_DAYS = 35
STRIP_HEIGHT = 8
WEEKS = 53
CHART_HEIGHT = 40
CHART_BARS = 120  # backups in the charts of a client's page
CHART_LEAST = 30
ROWS = 30  # backups in its table
MANY = 8  # alarms of one kind that are shown without a click
YEAR_S = 365 * 86400.0
FREE_WIDTH, FREE_HEIGHT = 720, 100
ORDERS = {
    "name": ("index.html", "name"),
    "alarms": ("by-alarms.html", "alarms first"),
    "age": ("by-age.html", "oldest backup first"),
    "size": ("by-size.html", "largest first"),
    "history": ("by-history.html", "largest history first"),
    "received": ("by-received.html", "most received first"),
}
DAYS = f"last {STRIP_DAYS} days"  # not known of several servers
COLUMNS = (
    ("client", "name", False),
    ("alarms", "alarms", False),
    ("newest backup", "age", False),
    (DAYS, None, False),
    ("took", None, True),
    ("received", "received", True),
    ("its files", "size", True),
    ("its history", "history", True),
    ("snapshots", None, True),
    ("back to", None, False),
)


class PageFile(NamedTuple):
    """One file of the page: its name below the directory, and its contents."""

    name: str
    content: bytes


def render(report: Report, readings: Sequence[FreeReading]) -> Iterator[PageFile]:
    """All files of the page, index.html first.

    ``readings`` are the free space of the last year, oldest first. Raises
    NotSetUpError where Jinja2 is not installed.
    """
    page = _Page(report, readings)
    yield from page.indexes()
    yield from page.clients()


class _Page:
    def __init__(self, report: Report, readings: Sequence[FreeReading]) -> None:
        self._report = report
        self._today = _day(report.time)
        self._environment = _environment()
        self._alarms = {name: list(found) for name, found in _by_client(report.alarms)}
        self._page = self._describe(readings)

    def indexes(self) -> Iterator[PageFile]:
        """The table of all clients, once in each order."""
        template = self._environment.get_template("index.html")
        rows = {client.name: self._row(client) for client in self._report.clients}
        for order, (name, _) in ORDERS.items():
            chosen = sorted(self._report.clients, key=self._key(order))
            self._page["orders"] = [
                {"href": href, "label": label, "is_this": other == order}
                for other, (href, label) in ORDERS.items()
            ]
            self._page["columns"] = [
                {
                    "label": label,
                    "is_number": is_number,
                    "sorted": words.direction(order) if key == order else None,
                }
                for label, key, is_number in COLUMNS
                if label != DAYS or not self._report.servers
            ]
            text = template.render(
                page=self._page, clients=[rows[client.name] for client in chosen]
            )
            yield PageFile(name, text.encode("utf-8", "replace"))

    def clients(self) -> Iterator[PageFile]:
        """One file for each client."""
        if self._report.servers:  # who knows more of them
            return
        template = self._environment.get_template("client.html")
        every = {self._today - timedelta(days=n) for n in range(7 * WEEKS)}
        grid = charts.draw_calendar(every, self._today, WEEKS)
        first = self._today - timedelta(days=grid.days - 1)
        for client in self._report.clients:
            days = _days(client.snapshots.times)
            text = template.render(
                page=self._page,
                c={"name": escape(client.name)},
                alarms=self._shown(self._alarms.get(client.name, ()), linked=False),
                facts=self._client_facts(client),
                calendar=charts.draw_calendar(days, self._today, WEEKS),
                calendar_first=first.isoformat(),
                grid=grid.path,
                charts=self._charts(client),
                rows=[self._backup(b) for b in reversed(client.backups[-ROWS:])],
            )
            yield PageFile(words.href(client.name), text.encode("utf-8", "replace"))

    def _describe(self, readings: Sequence[FreeReading]) -> dict[str, Any]:
        report = self._report
        style = _style()
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        self._environment.globals.update(style=_safe(style), style_hash=digest)
        wrong = {alarm.client for alarm in report.alarms}
        return {
            "title": words.title(report),
            "summary": words.summary(report, wrong),
            "server": escape(report.server),
            "version": report.version,
            "time": _moment(report.time),
            "time_iso": time.strftime("%Y-%m-%dT%H:%M%z", time.localtime(report.time)),
            **self._groups(),
            "number_of_clients": format_count(len(report.clients), "client"),
            "facts": self._server_facts() or self._store_facts(),
            "is_of_several": bool(report.servers),
            "free": self._free_chart(readings),
        }

    def _groups(self) -> dict[str, Any]:
        """The alarms, the worst kinds first; many of one kind are a group of their own.

        After an outage of the server all clients are stale: that is one line.
        """

        def rank(alarm: Alarm) -> tuple[bool, bool, str, str]:
            is_minor = alarm.level is not Level.CRITICAL
            return is_minor, bool(alarm.client), alarm.kind, alarm.client

        ordered = sorted(self._report.alarms, key=rank)
        shown, groups = [], []
        for kind, found in groupby(ordered, key=lambda alarm: alarm.kind):
            alarms = self._shown(list(found), linked=True)
            if len(alarms) > MANY:
                heading = f"{format_count(len(alarms), 'client')}: {kind}"
                groups.append({"heading": heading, "alarms": alarms})
            else:
                shown += alarms
        return {"alarms": shown, "groups": groups}

    def _shown(
        self, alarms: Sequence[Alarm], *, linked: bool
    ) -> list[dict[str, object]]:
        return [
            {
                "name": escape(alarm.client),
                "href": self._href(alarm.client) if linked and alarm.client else "",
                "is_named": linked,
                "kind": alarm.kind,
                "level": str(alarm.level),
                "message": words.sentence(alarm.message),
                "hint": words.sentence(alarm.hint),
            }
            for alarm in alarms
        ]

    def _server_facts(self) -> list[tuple[str, str]]:
        facts = []
        for server in self._report.servers:
            store = server.store
            percent = format_percent(store.free_bytes, store.total_bytes)
            age = format_age(max(self._report.time - server.time, 0))
            said = [
                f"{percent} of {words.size(store.total_bytes)} free",
                format_count(server.clients, "client"),
                format_count(server.alarms, "alarm"),
                f"told {age} ago",
            ]
            facts.append((escape(server.name), ", ".join(said)))
        return facts

    def _store_facts(self) -> list[tuple[str, str]]:
        store, facts = self._report.store, []
        if store.free_bytes is not None and store.total_bytes is not None:
            percent = format_percent(store.free_bytes, store.total_bytes)
            facts += [
                ("free", f"{format_size(store.free_bytes)} ({percent})"),
                ("size", format_size(store.total_bytes)),
            ]
        if store.oldest_snapshot is not None:
            facts.append(("history back to", _date(store.oldest_snapshot)))
        reach = expected_reach_s(self._report)
        if reach is not None:
            facts.append(("history will reach back", f"about {format_age(reach)}"))
        if store.scrub_finished is not None:
            facts.append(("last read through", _date(store.scrub_finished)))
        if store.pruned is not None:
            age = format_age(self._report.time - store.pruned)
            facts.append(("last pruning", f"{age} ago"))
        return facts

    def _free_chart(self, readings: Sequence[FreeReading]) -> dict[str, Any] | None:
        if len(readings) < 2:
            return None
        until = self._report.time
        since = max(readings[0].time, until - YEAR_S)
        points = [(r.time, r.free / r.total) for r in readings if r.total]
        top = min(1.0, 1.25 * max(share for _, share in points) or 1.0)
        share = self._report.store.min_percent / 100
        limit = f"pruning starts at {self._report.store.min_percent:g} %"
        return {
            "curve": charts.draw_curve(
                points,
                since=since,
                until=until,
                top=top,
                width=FREE_WIDTH,
                height=FREE_HEIGHT,
            ),
            "limit_y": round(FREE_HEIGHT * (1 - min(share / top, 1)), 1),
            "limit": limit,
            "label": f"Free space since {_date(since)}, now "
            f"{100 * points[-1][1]:.1f} %; {limit}",
            "first": _date(since),
            "last": f"now {100 * points[-1][1]:.1f} %",
        }

    def _href(self, client: str) -> str:
        return "" if self._report.servers else words.href(client)

    def _row(self, client: Client) -> dict[str, Any]:
        last = client.backups[-1] if client.backups else None
        alarms = self._alarms.get(client.name, [])
        is_bad = any(alarm.level is Level.CRITICAL for alarm in alarms)
        newest, oldest = client.newest_good, client.snapshots.oldest
        return {
            "name": escape(client.name),
            "href": self._href(client.name),
            "alarms": ", ".join(sorted({alarm.kind for alarm in alarms})),
            "mood": "bad" if is_bad else "warn",
            "age": "never"
            if newest is None
            else f"{format_age(self._report.time - newest)} ago",
            "strip": charts.draw_strip(
                _days(client.snapshots.times[-4 * STRIP_DAYS :]),
                self._today,
                STRIP_DAYS,
                STRIP_HEIGHT,
            ),
            "took": words.known(last and format_duration(last)),
            "received": words.size(last.received if last is not None else None),
            "current": words.size(client.current_bytes),
            "history": words.size(client.history_bytes),
            "snapshots": client.snapshots.number,
            "back_to": "" if oldest is None else _date(oldest),
        }

    def _client_facts(self, client: Client) -> list[tuple[str, str]]:
        newest, due = client.newest_good, next_expected(client)
        facts = [("newest good backup", "never")]
        if newest is not None:
            age = format_age(self._report.time - newest)
            facts = [("newest good backup", f"{_moment(newest)}, {age} ago")]
        if due is not None:
            facts.append(("next expected", _moment(due)))
        if len(client.good) > 1:
            facts.append(("usually every", format_age(usual_interval_s(client.good))))
        facts += [
            (name, format_size(size))
            for name, size in (
                ("its files", client.current_bytes),
                ("its history, about", client.history_bytes),
            )
            if size is not None
        ]
        facts.append(("snapshots", str(client.snapshots.number)))
        return facts

    def _charts(self, client: Client) -> list[dict[str, Any]]:
        shown = client.backups[-CHART_BARS:]
        if len(shown) < 2:
            return []
        found = []
        for heading, values, write in (
            ("How long they took", [b.duration_s for b in shown], format_age),
            ("What was received", [b.received for b in shown], words.size),
        ):
            known = [value for value in values if value is not None]
            if not known:
                continue
            bars = charts.draw_bars(
                [(v, b.result.is_good) for v, b in zip(values, shown, strict=True)],
                height=CHART_HEIGHT,
                least_width=CHART_LEAST,
            )
            top = write(max(known))
            found.append(
                {
                    "heading": heading,
                    "label": f"{heading}: {len(shown)} backups, at most {top}",
                    "bars": bars,
                    "top": top,
                    "first": _date(shown[0].started),
                    "last": _date(shown[-1].started),
                }
            )
        return found

    def _backup(self, backup: Backup) -> dict[str, Any]:
        return {
            "started": _moment(backup.started),
            "result": str(backup.result),
            "is_bad": not backup.result.is_good and backup.ended is not None,
            "took": format_duration(backup),
            "received": words.size(backup.received),
            "written": words.size(backup.written),
            "files": words.known(backup.files),
            "snapshot": escape(backup.snapshot or ""),
        }

    def _key(self, order: str) -> Any:
        def by(client: Client) -> tuple[Any, ...]:
            last = client.backups[-1] if client.backups else None
            alarms = self._alarms.get(client.name, [])
            number = {
                "name": 0,
                "alarms": -sum(1 + (a.level is Level.CRITICAL) for a in alarms),
                "age": client.newest_good or 0.0,
                "size": -(client.current_bytes or 0),
                "history": -(client.history_bytes or 0),
                "received": -((last.received if last is not None else 0) or 0),
            }[order]
            return number, client.name

        return by


def _day(moment: float) -> date:
    """The day by this machine's clock; time.localtime is much faster than a zone."""
    return date(*time.localtime(moment)[:3])


def _days(moments: Sequence[float]) -> set[date]:
    return {_day(moment) for moment in moments}


def _date(moment: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(moment))


def _moment(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


def _environment() -> Any:
    try:
        import jinja2
    except ImportError:
        raise NotSetUpError(
            "the page needs Jinja2, which is not installed",
            hint="on Debian and Ubuntu: apt-get install python3-jinja2",
        ) from None
    return jinja2.Environment(
        loader=jinja2.PackageLoader("byteback.server.status", "templates"),
        autoescape=True,
        finalize=_printable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _printable(value: Any) -> Any:
    """Text without control characters, which no page needs."""
    if type(value) is not str or value.isprintable():
        return value
    return "".join(c if c.isprintable() else escape(c) for c in value)


def _style() -> str:
    directory = resources.files("byteback.server.status") / "templates"
    return (directory / "style.css").read_text(encoding="utf-8")


def _safe(text: str) -> Any:
    """Text of our own that is not to be escaped."""
    import markupsafe

    return markupsafe.Markup(text)  # noqa: S704 # the style sheet beside this file


def _by_client(alarms: Sequence[Alarm]) -> Iterator[tuple[str, list[Alarm]]]:
    ordered = sorted(alarms, key=lambda alarm: alarm.client)
    for name, found in groupby(ordered, key=lambda alarm: alarm.client):
        yield name, list(found)
