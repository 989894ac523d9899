"""A status report in the text format that Prometheus reads, and as JSON.

Both have stable names: byteback-status(1) lists them, and a test compares.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

from byteback.model.alarms import KINDS, next_expected, stale_at
from byteback.model.status import Client, Report, Result


class _Metric(NamedTuple):
    name: str
    help: str
    samples: list[tuple[dict[str, str], float | None]]


def format_metrics(report: Report) -> str:
    """All gauges, each with ``# HELP`` and ``# TYPE``; a sample not known is left out.

    The format: https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    lines = []
    for metric in _metrics(report):
        lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} gauge"]
        for labels, value in metric.samples:
            if value is not None:
                lines.append(f"{metric.name}{_format_labels(labels)} {value:.15g}")
    return "\n".join(lines) + "\n"


def format_json(report: Report, *, with_backups: bool = False) -> str:
    """The whole report as one JSON object; times are seconds since 1970.

    ``with_backups`` adds all known backups of each client to the last one. Names that
    are no UTF-8 hold lone surrogates, as Python's surrogateescape has it.
    """
    fields = {
        "byteback": report.version,
        "server": report.server,
        "time": report.time,
        "store": _store_fields(report),
        "alarms": [alarm._asdict() for alarm in report.alarms],
        "clients": [_client_fields(client, with_backups) for client in report.clients],
    }
    return json.dumps(fields, indent=1)


def _store_fields(report: Report) -> dict[str, object]:
    replicas = [replica._asdict() for replica in report.store.replicas]
    return {**report.store._asdict(), "replicas": replicas}


def _client_fields(client: Client, with_backups: bool) -> dict[str, object]:
    last = client.backups[-1] if client.backups else None
    fields: dict[str, object] = {
        "name": client.name,
        "newest_good": client.newest_good,
        "next_expected": next_expected(client),
        "stale_at": stale_at(client),
        "snapshots": client.snapshots.number,
        "oldest_snapshot": client.snapshots.oldest,
        "newest_snapshot": client.snapshots.newest,
        "current_bytes": client.current_bytes,
        "history_bytes": client.history_bytes,
        "is_retired": client.is_retired,
        "last": last._asdict() if last is not None else None,
    }
    if with_backups:
        fields["backups"] = [backup._asdict() for backup in client.backups]
    return fields


def _metrics(report: Report) -> Iterator[_Metric]:
    store = report.store
    yield _Metric(
        "byteback_build_info",
        "The server's version of byteback; always 1.",
        [({"version": report.version}, 1)],
    )
    for name, text, value in (
        ("store_mounted", "1 if the store is mounted.", float(store.is_mounted)),
        ("store_read_only", "1 if the store is read-only.", float(store.is_read_only)),
        ("store_free_bytes", "Free space of the store.", store.free_bytes),
        ("store_size_bytes", "Size of the store.", store.total_bytes),
        ("clients", "Number of clients.", len(report.clients)),
        (
            "store_oldest_snapshot_timestamp_seconds",
            "Time of the oldest snapshot of any client.",
            store.oldest_snapshot,
        ),
        (
            "store_pruned_timestamp_seconds",
            "When pruning last finished a run.",
            store.pruned,
        ),
        (
            "store_scrubbed_timestamp_seconds",
            "When the store was last read through.",
            store.scrub_finished,
        ),
    ):
        yield _Metric(f"byteback_{name}", text, [({}, value)])
    yield from _client_metrics(report)
    yield _alarm_metric(report)


def _client_metrics(report: Report) -> Iterator[_Metric]:
    def each(name: str, text: str, values: list[float | None]) -> _Metric:
        labels = [{"client": client.name} for client in report.clients]
        return _Metric(
            f"byteback_client_{name}", text, list(zip(labels, values, strict=True))
        )

    clients = report.clients
    yield each(
        "newest_backup_timestamp_seconds",
        "When the newest good backup ended.",
        [client.newest_good for client in clients],
    )
    yield each(
        "stale_timestamp_seconds",
        "When the client becomes stale if no good backup comes.",
        [stale_at(client) for client in clients],
    )
    yield each(
        "snapshots", "Number of snapshots.", [c.snapshots.number for c in clients]
    )
    yield each(
        "oldest_snapshot_timestamp_seconds",
        "Time of the oldest snapshot.",
        [c.snapshots.oldest for c in clients],
    )
    yield each(
        "size_bytes", "Size of the newest backup.", [c.current_bytes for c in clients]
    )
    yield each(
        "history_bytes",
        "About how much would come back without the client's history.",
        [c.history_bytes for c in clients],
    )
    yield each(
        "last_duration_seconds", "How long the last backup took.", _took(clients)
    )
    yield each("last_received_bytes", "What the last one received.", _sent(clients))
    yield each(
        "last_success",
        "1 if the last finished transfer was whole or incomplete, 0 if it failed.",
        [_success(client) for client in clients],
    )


def _took(clients: tuple[Client, ...]) -> list[float | None]:
    return [c.backups[-1].duration_s if c.backups else None for c in clients]


def _sent(clients: tuple[Client, ...]) -> list[float | None]:
    return [c.backups[-1].received if c.backups else None for c in clients]


def _success(client: Client) -> float | None:
    ended = [b for b in client.backups if b.result is not Result.RUNNING]
    return float(ended[-1].result.is_good) if ended else None


def _alarm_metric(report: Report) -> _Metric:
    """One sample for each alarm, and 0 for each kind that nothing raises."""
    raised = {alarm.kind for alarm in report.alarms}
    # Of two of one kind, as errors of two devices are, the first: labels are unique.
    first = {(alarm.client, alarm.kind): alarm for alarm in reversed(report.alarms)}
    samples: list[tuple[dict[str, str], float | None]] = [
        ({"client": alarm.client, "kind": alarm.kind, "level": str(alarm.level)}, 1)
        for _, alarm in sorted(first.items())
    ]
    samples += [({"client": "", "kind": k}, 0) for k in KINDS if k not in raised]
    return _Metric(
        "byteback_alarm", "1 for each alarm; see byteback-status(1).", samples
    )


def _format_labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    pairs = (f'{name}="{_escape_label(value)}"' for name, value in labels.items())
    return "{" + ",".join(pairs) + "}"


def _escape_label(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return escaped.encode("utf-8", "replace").decode("utf-8")
