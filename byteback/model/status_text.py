"""A status report as text: the table, one client's history, a monitor's line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, tzinfo
from operator import itemgetter

from byteback.errors import escape
from byteback.model.alarms import format_age, next_expected
from byteback.model.size import format_count, format_size
from byteback.model.status import Backup, Client, Level, Report, Result

GAP = "  "
NOTHING = "-"
HEADER = (
    *("client", "newest", "ended", "next", "took", "sent", "size", "history"),
    *("snapshots", "back to", "alarms"),
)
SERVERS_HEADER = ("server", "told", "free", "of", "clients", "alarms")
HISTORY_HEADER = (
    *("started", "took", "result", "kind", "sent", "written", "files", "snapshot"),
)
# Exit statuses of monitoring plugins: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
CHECK_STATUSES = {None: 0, Level.WARNING: 1, Level.CRITICAL: 2}
NAMED = 5  # clients that the monitor's line names


def format_report(report: Report, zone: tzinfo) -> list[str]:
    """The table of all clients, and every alarm in words below it."""
    kinds = report.alarm_kinds()
    rows = [
        _client_row(client, report.time, kinds.get(client.name, ()), zone)
        for client in report.clients
    ]
    lines = _format_columns([HEADER, *rows])
    if report.servers:
        lines += ["", *_format_columns([SERVERS_HEADER, *_server_rows(report)])]
    lines += ["", *_store_lines(report, zone)]
    for alarm in report.alarms:
        name = escape(alarm.client) if alarm.client else "the store"
        lines += [f"{name}: {alarm.level}: {alarm.message}", f"  hint: {alarm.hint}"]
    return lines


def format_history(client: Client, zone: tzinfo) -> list[str]:
    """Each backup of one client, the newest last.

    Of a snapshot that the ledger does not know, its name is all there is to tell.
    """
    known = {backup.snapshot for backup in client.backups}
    rows = [(b.started, _history_row(b, zone)) for b in client.backups]
    nothing = [NOTHING] * (len(HISTORY_HEADER) - 1)
    rows += [
        (time, (*nothing, escape(name)))
        for time, name in zip(
            client.snapshots.times, client.snapshots.names, strict=False
        )
        if name not in known
    ]
    rows.sort(key=itemgetter(0))
    return _format_columns([HISTORY_HEADER, *(row for _, row in rows)])


def format_check(report: Report) -> tuple[str, int]:
    """One line for a monitoring system with performance data, and its exit status.

    See the Monitoring Plugins Development Guidelines.
    """
    wrong = {alarm.client for alarm in report.alarms}
    worst = report.worst
    word = "OK" if worst is None else worst.upper()
    if wrong:
        said = [_in_short(report, name) for name in sorted(wrong)[:NAMED]]
        said += [f"and {len(wrong) - NAMED} more"] if len(wrong) > NAMED else []
    else:
        said = [f"{format_count(len(report.clients), 'client')} without an alarm"]
    sentence = "; ".join(said).replace("|", "/")
    ages = [report.time - c.newest_good for c in report.clients if c.newest_good]
    data = [
        f"clients={len(report.clients)}",
        f"alarms={len(report.alarms)};;0",
        f"oldest_backup={max(ages, default=0):.0f}s",
    ]
    store = report.store
    if store.free_bytes is not None and store.total_bytes:
        percent = 100 * store.free_bytes / store.total_bytes
        data.append(f"free={percent:.1f}%;;;0;100")
    return f"BYTEBACK {word} - {sentence} | {' '.join(data)}", CHECK_STATUSES[worst]


def format_percent(part: int | None, whole: int | None) -> str:
    """``12.3 %``, or a dash where it is not known."""
    return NOTHING if part is None or not whole else f"{100 * part / whole:.1f} %"


def _in_short(report: Report, name: str) -> str:
    alarms = report.alarms_of(name)
    return f"{escape(name) or 'store'}: {', '.join(a.kind for a in alarms)}"


def _store_lines(report: Report, zone: tzinfo) -> list[str]:
    store = report.store
    if store.free_bytes is None or store.total_bytes is None:
        return []
    oldest = store.oldest_snapshot
    reach = "" if oldest is None else f", history back to {_day(oldest, zone)}"
    line = (
        f"{format_count(len(report.clients), 'client')}; free: "
        f"{format_size(store.free_bytes)} of {format_size(store.total_bytes)} "
        f"({format_percent(store.free_bytes, store.total_bytes)}){reach}"
    )
    return [line]


def _server_rows(report: Report) -> list[tuple[str, ...]]:
    return [
        (
            escape(server.name),
            f"{format_age(max(report.time - server.time, 0))} ago",
            format_percent(server.store.free_bytes, server.store.total_bytes),
            _size(server.store.total_bytes),
            str(server.clients),
            str(server.alarms),
        )
        for server in report.servers
    ]


def _client_row(
    client: Client, now: float, kinds: Iterable[str], zone: tzinfo
) -> tuple[str, ...]:
    last = client.backups[-1] if client.backups else None
    newest, due = client.newest_good, next_expected(client)
    oldest = client.snapshots.oldest
    return (
        escape(client.name),
        NOTHING if newest is None else f"{format_age(now - newest)} ago",
        NOTHING if last is None else str(last.result),
        NOTHING if due is None else _moment(due, zone),
        NOTHING if last is None else format_duration(last),
        _size(last.received if last is not None else None),
        _size(client.current_bytes),
        _size(client.history_bytes),
        str(client.snapshots.number),
        NOTHING if oldest is None else _day(oldest, zone),
        ", ".join(sorted(kinds)),
    )


def _history_row(backup: Backup, zone: tzinfo) -> tuple[str, ...]:
    kind = {True: "full", False: "partial", None: NOTHING}[backup.is_full]
    return (
        _moment(backup.started, zone),
        format_duration(backup),
        str(backup.result),
        kind,
        _size(backup.received),
        _size(backup.written),
        NOTHING if backup.files is None else str(backup.files),
        escape(backup.snapshot) if backup.snapshot else NOTHING,
    )


def format_duration(backup: Backup) -> str:
    """``1:02:03``, or a dash while it runs and where its end is not known."""
    if backup.result is Result.RUNNING or backup.duration_s is None:
        return NOTHING
    minutes, seconds = divmod(int(max(backup.duration_s, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def _size(size: int | None) -> str:
    return NOTHING if size is None else format_size(max(size, 0))


def _moment(time: float, zone: tzinfo) -> str:
    return datetime.fromtimestamp(time, zone).strftime("%Y-%m-%d %H:%M")


def _day(time: float, zone: tzinfo) -> str:
    return datetime.fromtimestamp(time, zone).strftime("%Y-%m-%d")


def _format_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        GAP.join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
