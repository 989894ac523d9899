"""Reads what byteback-status --json told on several servers, and makes one report.

The servers are not trusted: one that was taken over writes what it likes. Each field is
of its kind here, or the whole text is refused; names are escaped where they are shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from byteback.errors import UsageError, escape
from byteback.model.alarms import format_age
from byteback.model.size import format_count
from byteback.model.status import (
    HOUR_S,
    Alarm,
    Backup,
    Client,
    Level,
    Report,
    Result,
    Server,
    Snapshots,
    StoreState,
)

MAX_BYTES = 64 << 20  # of one report: some 100,000 clients
OLD_S = 3 * HOUR_S  # a report comes every hour
AHEAD_S = 600.0  # by which clocks may differ
# 9999-01-01: dates end a year later, and what is expected next is to have one too.
LAST_TIME = 253370764800


def read_report(text: bytes | str) -> Report:
    """The report that ``format_json`` wrote, as far as a table of many needs it.

    Raises UsageError for a text that is none.
    """
    try:
        fields = _Fields(json.loads(text))
        return Report(
            server=fields.text("server"),
            version=fields.text("byteback"),
            time=fields.time("time"),
            store=_read_store(fields.inner("store")),
            clients=tuple(map(_read_client, fields.list("clients"))),
            alarms=tuple(map(_read_alarm, fields.list("alarms"))),
        )
    except (ValueError, RecursionError) as error:
        what = f": {error}" if isinstance(error, _WrongError) else ""
        raise UsageError(
            f"this is not what byteback-status --json prints{what}",
            hint="write its output to the file anew",
        ) from None


def merge(reports: Sequence[Report], now: float) -> Report:
    """One report of all servers, in which a client's name is SERVER/CLIENT.

    A server that has not told for hours is an alarm by itself. Raises UsageError for
    two reports of one server.
    """
    names = [report.server for report in reports]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"two of the reports are of the server {name}",
                hint="name the newer one only",
            )
    servers = tuple(
        Server(
            report.server,
            report.time,
            report.store,
            len(report.clients),
            len(report.alarms),
        )
        for report in reports
    )
    alarms = [alarm for report in reports for alarm in _alarms(report, now)]
    return Report(
        server=format_count(len(reports), "server"),
        version=max((report.version for report in reports), default=""),
        time=now,
        store=_add_up(report.store for report in reports),
        clients=tuple(
            client._replace(name=f"{report.server}/{client.name}")
            for report in reports
            for client in report.clients
        ),
        alarms=tuple(alarms),
        servers=servers,
    )


class _WrongError(ValueError):
    """A field is missing, or is of another kind."""


class _Fields:
    """The fields of one object, each of the kind that is asked for."""

    def __init__(self, value: object) -> None:
        if not isinstance(value, Mapping):
            raise _WrongError("an object is missing")
        self._value = value

    def text(self, name: str) -> str:
        found = self._value.get(name)
        if not isinstance(found, str) or not found:
            raise _WrongError(f"{name} is no text")
        return _one_line(found)

    def any_text(self, name: str) -> str:
        found = self._value.get(name)
        return _one_line(found) if isinstance(found, str) else ""

    def time(self, name: str) -> float:
        found = self.number(name)
        if found is None:
            raise _WrongError(f"{name} is no number")
        return found

    def number(self, name: str) -> float | None:
        found = self._value.get(name)
        if isinstance(found, bool) or not isinstance(found, int | float):
            return None
        # Compared as it is: a number may be too large for a float.
        return float(found) if 0 <= found < LAST_TIME else None

    def size(self, name: str) -> int | None:
        found = self._value.get(name)
        if isinstance(found, bool) or not isinstance(found, int):
            return None
        return found if abs(found) < 1 << 63 else None

    def is_true(self, name: str) -> bool:
        return self._value.get(name) is True

    def inner(self, name: str) -> _Fields:
        return _Fields(self._value.get(name))

    def list(self, name: str) -> list[_Fields]:
        found = self._value.get(name)
        if not isinstance(found, list):
            raise _WrongError(f"{name} is no list")
        return [_Fields(item) for item in found]


def _one_line(text: str) -> str:
    """``text`` without what moves a terminal's cursor or begins another line.

    Sentences are escaped already where they were made: no backslash becomes two.
    """
    return "".join(c if c.isprintable() else escape(c) for c in text)


def _read_store(fields: _Fields) -> StoreState:
    return StoreState(
        is_mounted=fields.is_true("is_mounted"),
        is_read_only=fields.is_true("is_read_only"),
        free_bytes=fields.size("free_bytes"),
        total_bytes=fields.size("total_bytes"),
        scrub_finished=fields.number("scrub_finished"),
        pruned=fields.number("pruned"),
        oldest_snapshot=fields.number("oldest_snapshot"),
    )


def _read_client(fields: _Fields) -> Client:
    newest, due = fields.number("newest_good"), fields.number("next_expected")
    is_expected = newest is not None and due is not None
    snapshots = Snapshots(
        max(0, fields.size("snapshots") or 0),
        fields.number("oldest_snapshot"),
        newest,
    )
    return Client(
        name=fields.text("name"),
        backups=_read_last(fields),
        snapshots=snapshots,
        # The server's own judgement, whatever it went by.
        expect_hours=((due or 0) - (newest or 0)) / HOUR_S if is_expected else 0.0,
        current_bytes=fields.size("current_bytes"),
        history_bytes=fields.size("history_bytes"),
        is_retired=fields.is_true("is_retired"),
    )


def _read_last(client: _Fields) -> tuple[Backup, ...]:
    try:
        fields = client.inner("last")
    except _WrongError:
        return ()
    started = fields.number("started")
    try:
        result = Result(fields.any_text("result"))
    except ValueError:
        return ()
    if started is None:
        return ()
    received, taken = fields.size("received"), fields.size("taken")
    ended = fields.number("ended")
    return (Backup(started, ended, result, received=received, taken=taken),)


def _read_alarm(fields: _Fields) -> Alarm:
    is_critical = fields.text("level") == Level.CRITICAL
    return Alarm(
        fields.any_text("client"),
        fields.text("kind"),
        Level.CRITICAL if is_critical else Level.WARNING,
        fields.text("message"),
        fields.any_text("hint"),
    )


def _alarms(report: Report, now: float) -> Iterable[Alarm]:
    age = now - report.time
    if age > OLD_S or age < -AHEAD_S:
        when = f"is {format_age(age)} old" if age > 0 else "is of a time to come"
        yield Alarm(
            f"{report.server}/",
            "report",
            Level.CRITICAL,
            f"the report of {report.server} {when}",
            "see whether the server is up, and what brings its report here",
        )
    for alarm in report.alarms:
        name = f"{report.server}/{alarm.client}"
        yield Alarm(name, alarm.kind, alarm.level, alarm.message, alarm.hint)


def _add_up(stores: Iterable[StoreState]) -> StoreState:
    every = list(stores)
    known = [
        (store.free_bytes, store.total_bytes)
        for store in every
        if store.free_bytes is not None and store.total_bytes is not None
    ]
    oldest = [s.oldest_snapshot for s in every if s.oldest_snapshot is not None]
    return StoreState(
        is_mounted=all(store.is_mounted for store in every),
        free_bytes=sum(free for free, _ in known) if known else None,
        total_bytes=sum(total for _, total in known) if known else None,
        oldest_snapshot=min(oldest, default=None),
    )
