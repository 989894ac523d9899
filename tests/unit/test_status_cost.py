"""The cost of a status report grows with the number of clients, and no faster.

Counted, not timed: calls of functions, and steps of SQLite's and Python's machines.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from byteback.model import metrics, notification, status_text
from byteback.model.status import (
    DAY_S,
    Alarm,
    Backup,
    Client,
    Level,
    Report,
    Result,
    StoreState,
)
from byteback.server.accounting import ledger_file
from byteback.server.status import collect
from byteback.server.store.layout import Store
from tests.made_up_store import make_store

TraceFunction = Callable[[FrameType, str, Any], Any]

NOW = 1_800_000_000.0
STEPS_AT_ONCE = 10
FEW, MANY = 10, 40
HUGE_MB = 1_000_000  # so that every client stands out, and is judged
SNAPSHOTS = 30
MAX_CALLS = 570  # for each client with so many snapshots: 437 were counted
MAX_LOCKS = 20  # of the file, however many clients there are: 8 were counted
MAX_STEPS = 2300  # of SQLite's machine: 1724 were counted


class Counter:
    """What one report took."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = self.steps = self.locks = 0
        real = ledger_file._connect

        def connect(place: Path, wait_s: float) -> sqlite3.Connection:
            connection = real(place, wait_s)
            connection.set_progress_handler(self._step, STEPS_AT_ONCE)
            connection.set_trace_callback(lambda _: self._statement(connection))
            return connection

        monkeypatch.setattr(ledger_file, "_connect", connect)

    def _step(self) -> int:
        self.steps += STEPS_AT_ONCE
        return 0

    def _statement(self, connection: sqlite3.Connection) -> None:
        # Outside of a transaction each statement locks the file for itself.
        self.locks += not connection.in_transaction

    def _call(self, frame: FrameType, event: str, _: object) -> None:
        is_ours = frame.f_code is Counter._step.__code__
        self.calls += event in ("call", "c_call") and not is_ours

    def count(self, store: Store) -> Report:
        """Collect a report and count."""
        self.calls = self.steps = self.locks = 0
        sys.setprofile(self._call)
        try:
            return collect.collect(store, time.time())
        finally:
            sys.setprofile(None)


@pytest.mark.parametrize("megabytes", [1, HUGE_MB], ids=["usual", "all-stand-out"])
def test_it_grows_with_the_clients_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, megabytes: int
) -> None:
    counter = Counter(monkeypatch)
    taken = []
    for number in (FEW, MANY):
        store = make_store(
            tmp_path / f"{number}", number, SNAPSHOTS, megabytes=megabytes
        )
        assert len(counter.count(store).clients) == number
        taken.append((counter.calls, counter.steps))
        if megabytes != HUGE_MB:
            assert counter.locks < MAX_LOCKS
    (few_calls, few_steps), (many_calls, many_steps) = taken
    assert many_calls <= few_calls * MANY / FEW
    assert many_steps <= few_steps * MANY / FEW
    if megabytes != HUGE_MB:
        assert many_calls / MANY < MAX_CALLS
        assert many_steps / MANY < MAX_STEPS


def count_instructions(work: Callable[[], object]) -> int:
    """The instructions of Python's machine that some work takes."""
    number = 0

    def trace(frame: FrameType, event: str, _: object) -> TraceFunction:
        nonlocal number
        frame.f_trace_opcodes = True
        number += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return number


def stale_clients(number: int) -> Report:
    """A report in which each client has an alarm, as after an outage of the server."""
    names = [f"host{one:05}.example.net" for one in range(number)]
    ended = Backup(NOW - 30 * DAY_S, NOW - 30 * DAY_S + 60, Result.WHOLE)
    return Report(
        server="store",
        version="1",
        time=NOW,
        store=StoreState(free_bytes=1, total_bytes=2),
        clients=tuple(Client(name, (ended,)) for name in names),
        alarms=tuple(Alarm(n, "stale", Level.CRITICAL, "old", "") for n in names),
    )


@pytest.mark.parametrize(
    "write",
    [
        lambda report: status_text.format_report(report, UTC),
        status_text.format_check,
        metrics.format_json,
        metrics.format_metrics,
        lambda report: notification.compare(report.alarms, {}, NOW),
    ],
    ids=["table", "check", "json", "prometheus", "telling"],
)
def test_what_is_written_grows_with_the_clients_alone(
    write: Callable[[Report], object],
) -> None:
    write(stale_clients(1))  # what is made once
    few, many = (
        count_instructions(partial(write, stale_clients(number)))
        for number in (MANY, 4 * MANY)
    )
    assert many <= 4 * few


def test_old_transfers_cost_a_report_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger keeps more than two years; the store has a few snapshots of that."""
    counter = Counter(monkeypatch)
    short, long = (make_store(tmp_path / f"{n}", 5, n) for n in (30, 300))
    for host in long.hosts():
        for snapshot in long.snapshots(host)[:-30]:
            (long.root / snapshot.path).rmdir()
    taken = []
    for store in (short, long):
        assert {c.snapshots.number for c in counter.count(store).clients} == {30}
        taken.append((counter.calls, counter.steps))
    assert taken[1][0] < 1.1 * taken[0][0]
    assert taken[1][1] < 8 * taken[0][1]


@contextlib.contextmanager
def locked(store: Store) -> Iterator[None]:
    """The ledger as long as another program writes to it, on a disc that hangs."""
    ledger = sqlite3.connect(ledger_file.path(store))
    with contextlib.closing(ledger):
        ledger.execute("BEGIN EXCLUSIVE")
        yield


def test_a_locked_ledger_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path / "store", 3, 5)
    waits: list[float] = []
    real = ledger_file._connect

    def connect(place: Path, wait_s: float) -> sqlite3.Connection:
        waits.append(wait_s)
        return real(place, wait_s)

    monkeypatch.setattr(ledger_file, "_connect", connect)
    with locked(store):
        report = collect.collect(store, time.time())
    assert waits[0] == ledger_file.SHORT_WAIT_S
    assert sum(waits) < 2 * ledger_file.SHORT_WAIT_S
    assert [client.snapshots.number for client in report.clients] == [5, 5, 5]
    assert all(client.newest_good is not None for client in report.clients)
    waits.clear()
    assert all(c.backups for c in collect.collect(store, time.time()).clients)
    assert max(waits) <= ledger_file.SHORT_WAIT_S


def test_a_ledger_of_a_later_version_is_read(tmp_path: Path) -> None:
    """A later version adds tables and columns, and takes none away."""
    store = make_store(tmp_path / "store", 3, 5)
    with ledger_file.opened(store) as ledger:
        ledger.execute("ALTER TABLE transfer ADD COLUMN mood TEXT NOT NULL DEFAULT ''")
        ledger.execute("CREATE TABLE later (host TEXT)")
        ledger.execute(f"PRAGMA user_version = {ledger_file.VERSION + 7}")
    report = collect.collect(store, time.time())
    assert [len(client.backups) for client in report.clients] == [5, 5, 5]
    assert report.clients[0].current_bytes


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0" + b"x" * 4000, b"no"])
def test_a_ledger_that_was_cut_off_or_overwritten(
    tmp_path: Path, content: bytes
) -> None:
    store = make_store(tmp_path / "store", 3, 5)
    ledger_file.path(store).write_bytes(content)
    report = collect.collect(store, time.time())
    assert [client.snapshots.number for client in report.clients] == [5, 5, 5]
    assert all(client.newest_good is not None for client in report.clients)
