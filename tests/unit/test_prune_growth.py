"""Pruning spares history when a backup is suddenly different."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from types import SimpleNamespace

import pytest

from byteback.server.accounting import ledger, ledger_file
from tests.unit.pretended_volume import LIMITS, NOW, Volume
from tests.unit.pretended_volume import volume as volume  # noqa: PLC0414


def record_backups(
    volume: Volume, host: str, *taken: int, names: int | None = None
) -> None:
    """One finished push a day, the last one an hour ago, each with its snapshot."""
    with closing(sqlite3.connect(ledger_file.path(volume.store))) as connection:
        connection.executescript(ledger_file.SCHEMA)
        for back, size in zip(reversed(range(len(taken))), taken, strict=True):
            started = (NOW - timedelta(days=back, hours=1)).timestamp()
            connection.execute(
                "INSERT INTO transfer (host, address, kind, started, data_taken, names)"
                " VALUES (?, '', 'push', ?, ?, ?)",
                (host, started, size, names if back == 0 else names and 1000),
            )
            connection.execute(
                "INSERT INTO snapshot (host, name, made, incomplete)"
                " VALUES (?, '', ?, 0)",
                (host, started + 60),
            )
        connection.commit()


@pytest.fixture
def ledger_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(time=NOW.timestamp)
    monkeypatch.setattr(ledger, "time", clock)


def grown(volume: Volume, *taken: int) -> None:
    volume.add("a", 0, *range(10, 30))
    record_backups(volume, "a", *taken)
    volume.free = 4


@pytest.mark.usefixtures("ledger_clock")
def test_no_history_goes_for_a_suddenly_larger_backup(
    volume: Volume, caplog: pytest.LogCaptureFixture
) -> None:
    grown(volume, 1, 1, 1, 7)
    assert volume.pruner().prune(LIMITS) == 0
    assert "host 'a' has taken 7 B" in caplog.text
    assert "--approve a" in caplog.text
    assert "--discard a" in caplog.text
    ledger.approve(volume.store, "a")
    assert volume.pruner().prune(LIMITS) == 3


@pytest.mark.usefixtures("ledger_clock")
def test_blame_counts_no_more_than_it_took(volume: Volume) -> None:
    grown(volume, 1, 1, 1, 3)
    volume.free = 1  # the other one percent has gone elsewhere
    assert volume.pruner().prune(LIMITS) > 0
    assert volume.free == 7  # with the three that count as free, the upper limit


@pytest.mark.usefixtures("ledger_clock")
def test_others_get_room_while_somebody_is_to_blame(volume: Volume) -> None:
    grown(volume, 1, 1, 1, 50)
    volume.free = 3
    assert volume.pruner().prune(LIMITS) == 0
    volume.free = 2
    assert volume.pruner().prune(LIMITS) == 2
    assert volume.free == 6  # up to the lower limit, where that one is stopped


@pytest.mark.parametrize("content", [None, b"", b"no ledger at all" * 500])
def test_without_a_ledger_there_is_no_judgement(
    volume: Volume, content: bytes | None
) -> None:
    volume.add("a", 0, *range(10, 30))
    volume.free = 4
    if content is not None:
        ledger_file.path(volume.store).write_bytes(content)
    assert volume.pruner().prune(LIMITS) == 3


@pytest.mark.usefixtures("ledger_clock")
def test_snapshots_of_a_suddenly_smaller_host_stay(
    volume: Volume, caplog: pytest.LogCaptureFixture
) -> None:
    volume.add("b", 0, *range(8, 20))
    volume.add("a", 0, *range(20, 40))
    record_backups(volume, "a", 0, 0, 0, 0, names=10)
    volume.free = 4
    assert volume.pruner().prune(LIMITS) == 3
    assert all(path.startswith("b/") for path in volume.deleted)
    assert "has only 10 files" in caplog.text
    listed = volume.pruner().listing()
    held = [line for line in listed if "kept: its host is suddenly smaller" in line]
    assert len(held) == 20
    ledger.approve(volume.store, "a")
    volume.free = 4
    assert volume.pruner().prune(LIMITS) == 3
    assert volume.deleted[-1].startswith("a/")
