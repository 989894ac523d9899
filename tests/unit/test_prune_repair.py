"""What a pruning run puts right beside deleting, and what it records."""

from __future__ import annotations

import logging
import sqlite3
import time
from contextlib import closing

import pytest

from byteback.model.free_space import Limits, MetadataRoom
from byteback.server.accounting import ledger_file, ledger_report
from byteback.server.store import marks
from byteback.server.store.layout import DISCARDED
from byteback.system.btrfs import commands
from tests.unit.pretended_volume import KEY_LINE, LIMITS, Volume
from tests.unit.pretended_volume import volume as volume  # noqa: PLC0414


@pytest.mark.parametrize(
    ("free", "metadata", "compacted"),
    [
        # Metadata is short, data is not.
        (50, MetadataRoom(1000 << 20, 990 << 20, 0, 0), ["data"]),
        (5, MetadataRoom(1000 << 20, 990 << 20, 0, 0), []),
        # Data is short, and metadata sits on much that it does not need.
        (5, MetadataRoom(4000 << 20, 100 << 20, 0, 0), ["metadata"]),
        (5, MetadataRoom(4000 << 20, 2500 << 20, 0, 0), []),
        (5, None, []),
    ],
)
def test_lopsided_room_is_evened_out_once_before_anything_goes(
    volume: Volume, free: int, metadata: MetadataRoom | None, compacted: list[str]
) -> None:
    volume.add("a", 0, *range(10, 12))
    volume.free, volume.metadata = free, metadata
    volume.pruner().prune(LIMITS)
    assert volume.compacted == compacted


def test_a_writable_snapshot_is_closed(
    volume: Volume, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    made = volume.add("a", 0, 10)
    volume.sealed.discard(made[1])
    (volume.root / "a" / "saved-by-hand").mkdir()
    volume.free = 50
    volume.pruner().prune(LIMITS)
    assert volume.closed == [made[1].name]
    assert caplog.text.count("read-only") == 1
    volume.pruner().prune(LIMITS)
    assert volume.closed == [made[1].name]


@pytest.mark.parametrize("is_enrolled", [True, False])
def test_a_lost_current_comes_back_for_an_enrolled_host(
    volume: Volume, monkeypatch: pytest.MonkeyPatch, is_enrolled: bool
) -> None:
    made = volume.add("a", 0, 10)
    volume.store.current("a").rmdir()
    taken = []
    monkeypatch.setattr(
        commands, "take_snapshot", lambda *words, **_: taken.append(words)
    )
    if is_enrolled:
        volume.store.authorized_keys.parent.mkdir(mode=0o700)
        volume.store.authorized_keys.write_text(KEY_LINE)
    volume.free = 50
    volume.pruner().prune(LIMITS)
    expected = [(made[0], volume.store.current("a"))] if is_enrolled else []
    assert taken == expected


def test_what_a_discard_left_is_deleted_unless_a_transfer_runs(
    volume: Volume,
) -> None:
    volume.add("a", 0)
    left = volume.root / "a" / DISCARDED
    left.mkdir()
    volume.free = 50
    with volume.store.lock_host("a"):
        volume.pruner().prune(LIMITS)
        assert left.exists()
    volume.pruner().prune(LIMITS)
    assert not left.exists()


def test_each_run_tells_that_it_came_to_its_end(volume: Volume) -> None:
    volume.free = 50
    volume.pruner().prune(LIMITS)
    assert marks.read(volume.store, marks.PRUNED) == pytest.approx(time.time(), abs=60)
    readings = ledger_report.free_readings(volume.store, 0)
    assert [(reading.free, reading.total) for reading in readings] == [(50, 100)]
    volume.pruner().prune(LIMITS)
    assert len(ledger_report.free_readings(volume.store, 0)) == 1, "one an hour"


def test_what_a_deletion_gave_back_is_recorded(volume: Volume) -> None:
    volume.add("a", 0, 10, 11, 12)
    volume.free, volume.each = 8, 2
    volume.pruner().prune(Limits(8, 10))
    with closing(sqlite3.connect(ledger_file.path(volume.store))) as connection:
        rows = connection.execute("SELECT host, expected, freed FROM deletion")
        assert rows.fetchall() == [("a", None, 2)]
