"""The decisions of one pruning run, on a pretended volume where time and space obey."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from byteback import locking
from byteback.errors import LockedError, PolicyError, ToolError, UsageError
from byteback.model.free_space import FreeSpace, Limits, MetadataRoom
from byteback.model.retention import RankedSnapshot
from byteback.model.snapshot import format_snapshot_name
from byteback.model.status import PruneFault
from byteback.server.accounting import ledger, ledger_file, ledger_report, sizes
from byteback.server.prune import repair, report, run
from byteback.server.prune.removal import Remover
from byteback.server.store import marks, reserve, settings
from byteback.server.store.layout import DISCARDED, Store
from byteback.system import privilege
from byteback.system.btrfs import commands

NOW = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)
# What each run leaves for byteback-status, and nothing else where all is well.
RUN_NOTES = {"ledger.sqlite", marks.PRUNED} | (
    {marks.SEALED} if os.geteuid() == 0 else set()
)
LIMITS = Limits(5, 10)
KEY_LINE = (
    'restrict,command="/usr/bin/byteback-receive --host a" ssh-ed25519 '
    "AAAAC3NzaC1lZDI1NTE5AAAAIJ1J7Ln0zqk4yN1sPwy0Qh6D2E8yqz0wYzR2l4nV8m3T a\n"
)


class Volume:
    """A pretended volume: each snapshot holds ``each`` percent of it, when deleted.

    Space comes back when somebody waits, unless ``is_slow``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root)
        self.store.state.mkdir()
        self.free = 0
        self.pending = 0
        self.each = 2
        self.is_slow = False
        self.waits = 0
        self.undeletable: set[str] = set()
        self.deleted: list[str] = []
        self.sealed: set[Path] = set()  # read-only, whatever the caller's rights
        self.closed: list[str] = []
        self.metadata: MetadataRoom | None = None
        self.compacted: list[str] = []
        self.plain: set[Path] = set()  # directories that are no subvolumes

    def add(self, host: str, *days_old: int) -> list[Path]:
        (self.root / host / "current").mkdir(parents=True, exist_ok=True)
        made = []
        for days in days_old:
            name = format_snapshot_name(NOW - timedelta(days=days))
            made.append(self.root / host / name)
            made[-1].mkdir()
            self.sealed.add(made[-1])
        return made

    def free_space(self, path: Path) -> FreeSpace:
        assert path == self.root
        return FreeSpace(self.free, 100, self.metadata)

    def wait(self, path: Path, timeout_s: float) -> bool:
        assert path == self.root
        assert timeout_s > 0
        self.waits += 1
        if self.is_slow:
            return False
        self.free, self.pending = self.free + self.pending, 0
        return True

    def delete(
        self,
        path: Path,
        make_room: Callable[[], object],
        check: Callable[[int], bool],
    ) -> None:
        assert callable(make_room)
        assert callable(check)
        assert self.pending == 0, "the space of the one before is not back yet"
        if path.name in self.undeletable:
            raise ToolError("btrfs failed", details=["ERROR: Operation not permitted"])
        path.rmdir()
        self.deleted.append(f"{path.parent.name}/{path.name[:10]}")
        self.pending += self.each

    def close(self, path: Path, read_only: bool) -> None:
        assert read_only
        self.sealed.add(path)
        self.closed.append(path.name)

    def may_write(self, path: Path, mode: int) -> bool:
        assert mode == os.W_OK
        return path not in self.sealed

    def is_subvolume(self, path: Path) -> bool:
        return path.is_dir() and not path.is_symlink() and path not in self.plain

    def compact(self, path: Path, kind: str) -> bool:
        assert path == self.root
        self.compacted.append(kind)
        return True

    def pruner(self, order: str = report.AGE) -> run.Pruner:
        return run.Pruner(self.store, order, now=lambda: NOW)


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Volume:
    made = Volume(tmp_path)
    monkeypatch.setattr(commands, "free_space", made.free_space)
    monkeypatch.setattr(commands, "wait_for_deletions", made.wait)
    monkeypatch.setattr(commands, "delete_on_full_disc", made.delete)
    monkeypatch.setattr(commands, "set_read_only", made.close)
    monkeypatch.setattr(commands, "compact", made.compact)
    monkeypatch.setattr(reserve, "provide", lambda _: True)
    monkeypatch.setattr(
        repair, "os", SimpleNamespace(**{**vars(os), "access": made.may_write})
    )
    monkeypatch.setattr(commands, "is_subvolume", made.is_subvolume)
    return made


def test_enough_space_is_left_alone(volume: Volume) -> None:
    volume.add("a", 0, 10, 20)
    volume.free = 6
    assert volume.pruner().prune(LIMITS) == 0
    assert (volume.deleted, volume.waits) == ([], 0)
    assert {path.name for path in volume.store.state.iterdir()} == RUN_NOTES


def test_pruning_goes_on_to_the_upper_limit_and_no_further(volume: Volume) -> None:
    volume.add("a", 0, *range(10, 30))
    volume.free = 5
    assert volume.pruner().prune(LIMITS) == 3
    assert volume.deleted == ["a/2026-10-25", "a/2026-10-26", "a/2026-10-27"]
    assert volume.free == 11
    assert {path.name for path in volume.store.state.iterdir()} == RUN_NOTES


def test_no_second_deletion_before_the_first_gave_its_space(
    volume: Volume, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    volume.add("a", 0, *range(10, 20))

    def wait_in_vain_after_the_first(path: Path, timeout_s: float) -> bool:
        volume.is_slow = volume.waits > 0
        return volume.wait(path, timeout_s)

    monkeypatch.setattr(commands, "wait_for_deletions", wait_in_vain_after_the_first)
    assert volume.pruner().prune(LIMITS) == 1
    assert "a later run goes on" in caplog.text
    assert marks.read_fault(volume.store) is PruneFault.WAITING


def test_a_later_run_waits_first_and_then_goes_on(volume: Volume) -> None:
    volume.add("a", 0, *range(10, 20))
    volume.is_slow, volume.pending = True, 2
    assert volume.pruner().prune(LIMITS) == 0
    volume.is_slow = False
    assert volume.pruner().prune(LIMITS) == 4
    assert volume.free == 10


def test_space_that_comes_back_late_saves_the_next_snapshot(volume: Volume) -> None:
    volume.add("a", 0, *range(10, 20))
    volume.pending = 30
    assert volume.pruner().prune(LIMITS) == 0
    assert volume.free == 30


def test_an_interrupted_run_is_finished_between_the_limits(volume: Volume) -> None:
    volume.add("a", 0, *range(10, 20))
    volume.is_slow = True
    volume.pruner().prune(LIMITS)
    volume.is_slow, volume.free = False, 7
    assert volume.pruner().prune(LIMITS) == 2
    volume.free = 7
    assert volume.pruner().prune(LIMITS) == 0


def test_upper_limit_holds_where_nothing_can_be_written(volume: Volume) -> None:
    volume.add("a", 0, *range(10, 20))
    volume.store.state.rmdir()
    assert volume.pruner().prune(LIMITS) == 5


@pytest.mark.parametrize("order", [report.AGE, report.IMPORTANCE])
def test_young_newest_and_foreign_are_never_pruned(volume: Volume, order: str) -> None:
    volume.add("a", 0, 1, 6, 8)
    volume.add("dormant", 900)
    (volume.root / "a" / "saved-do-not-delete").mkdir()
    (volume.root / "a" / "restore-2015-01-01").mkdir()
    (volume.root / "noclient").mkdir()
    (volume.root / "noclient" / "2015-01-01T00:00+0000").mkdir()
    assert volume.pruner(order).prune(LIMITS) == 1
    assert volume.deleted == ["a/2026-11-15"]


def test_nothing_goes_while_no_snapshot_is_a_week_old(
    volume: Volume, caplog: pytest.LogCaptureFixture
) -> None:
    volume.add("a", 0, 1, 2, 3, 4, 5, 6)
    pruner = volume.pruner()
    assert pruner.prune(LIMITS) == 0
    assert "no snapshot may be deleted" in caplog.text
    with pytest.raises(PolicyError, match="no snapshot may be deleted"):
        pruner.refuse_full_disc()


def test_what_cannot_be_deleted_is_reported_and_the_next_one_goes(
    volume: Volume,
) -> None:
    made = volume.add("a", 0, *range(10, 20))
    volume.undeletable = {made[-1].name}
    with pytest.raises(ToolError) as caught:
        volume.pruner().prune(LIMITS)
    assert len(volume.deleted) == 5
    assert made[-1].exists()
    assert "user_subvol_rm_allowed" in str(caught.value.hint)
    assert caught.value.exit_status == 13


def test_a_run_gives_up_when_all_deletions_fail(volume: Volume) -> None:
    made = volume.add("a", 0, *range(10, 30))
    volume.undeletable = {path.name for path in made}
    with pytest.raises(ToolError, match="4 more"):
        volume.pruner().prune(LIMITS)
    assert volume.deleted == []


def test_what_is_no_subvolume_any_more_is_left_alone(volume: Volume) -> None:
    made = volume.add("a", 0, *range(10, 20))
    elsewhere = volume.root / "elsewhere"
    made[-1].rename(elsewhere)
    pruner = volume.pruner()
    places = run.Pruner._places

    def swapped(self: run.Pruner) -> list[RankedSnapshot]:
        made[-1].unlink(missing_ok=True)
        made[-1].mkdir()
        found = places(self)
        made[-1].rmdir()
        made[-1].symlink_to(elsewhere)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.Pruner, "_places", swapped)
        assert pruner.prune(LIMITS) == 5
    assert elsewhere.is_dir()
    assert made[-1].is_symlink()


def test_a_host_that_became_a_link_is_left_alone(volume: Volume) -> None:
    volume.add("a", 0, *range(10, 20))
    last = volume.pruner()._places()[-1].snapshot
    (volume.root / "a").rename(volume.root / "b")
    (volume.root / "a").symlink_to(volume.root / "b")
    assert Remover(volume.store).is_deletable(last) is False


@pytest.mark.parametrize("is_root", [True, False], ids=["root", "user"])
def test_a_run_of_root_waits_for_one_of_the_user(
    volume: Volume, monkeypatch: pytest.MonkeyPatch, is_root: bool
) -> None:
    """Which a client's transfer can start again and again."""
    # For this alone: deleting, too, would become root then.
    told = {**vars(privilege), "is_root_within_reach": lambda: is_root}
    monkeypatch.setattr(run, "privilege", SimpleNamespace(**told))
    volume.add("a", 0, *range(10, 20))
    with contextlib.ExitStack() as held:
        held.enter_context(locking.hold_directory(volume.root))
        monkeypatch.setattr(time, "sleep", lambda _: held.close())
        volume.pruner().prune(LIMITS)
    assert bool(volume.deleted) is is_root


def test_runs_that_overlap_leave_the_work_to_the_first(
    volume: Volume, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "ROOT_WAIT_S", 0.0)
    caplog.set_level(logging.INFO)
    volume.add("a", 0, *range(10, 20))
    with locking.hold_directory(volume.root):
        assert volume.pruner().prune(LIMITS) == 0
        assert "already" in caplog.text
        assert volume.pruner().listing()
        with pytest.raises(LockedError):
            volume.pruner().prune_one()
    assert volume.deleted == []


def test_force_deletes_exactly_one_whatever_its_age(volume: Volume) -> None:
    volume.add("a", 0, 1, 2)
    volume.free = 90
    assert volume.pruner().prune_one() == []
    assert volume.deleted == ["a/2026-11-21"]


def test_force_takes_a_newest_last_and_says_so(
    volume: Volume, caplog: pytest.LogCaptureFixture
) -> None:
    volume.add("a", 0, 1)
    volume.add("b", 100)
    told = [line for _ in range(3) for line in volume.pruner().prune_one()]
    assert volume.deleted == ["a/2026-11-22", "b/2026-08-15", "a/2026-11-23"]
    assert [line.rpartition(" ")[2] for line in told] == ["'b'", "'a'"]
    assert all("no other snapshot was left" in line for line in told)
    assert caplog.text.count("no other snapshot was left") == 2
    assert volume.pruner().prune_one() == []
    assert len(volume.deleted) == 3


def test_a_plain_directory_takes_no_snapshots_place(volume: Volume) -> None:
    """Made by hand and newer than all, it would else stand for its host's newest."""
    made = volume.add("a", 8, 20)
    plain = volume.root / "a" / format_snapshot_name(NOW)
    plain.mkdir()
    volume.plain.add(plain)
    lines = volume.pruner().listing()
    assert [line.split()[0] for line in lines] == [
        f"a/{path.name}" for path in (plain, *made)
    ]
    assert lines[0].endswith("cannot be deleted: it is no subvolume")
    assert lines[1].endswith("kept: newest of its host")
    assert volume.pruner().prune(LIMITS) == 1
    assert volume.deleted == ["a/2026-11-03"]
    assert volume.pruner().prune_one()
    assert volume.deleted == ["a/2026-11-03", "a/2026-11-15"]
    assert plain.is_dir()


def test_force_reports_a_failure_and_deletes_no_other(volume: Volume) -> None:
    made = volume.add("a", 0, 1, 2)
    volume.undeletable = {made[-1].name}
    with pytest.raises(ToolError):
        volume.pruner().prune_one()
    assert volume.deleted == []


def test_listing_gives_reasons_and_what_is_kept(volume: Volume) -> None:
    volume.add("a", 0, 30)
    volume.add("longer.name", 100)
    lines = volume.pruner(report.IMPORTANCE).listing()
    assert [line.split()[0] for line in lines] == [
        "a/2026-11-23T15:00+0000",
        "longer.name/2026-08-15T15:00+0000",
        "a/2026-10-24T15:00+0000",
    ]
    assert lines[0].endswith(
        "nearest to midday of 2026-11-23; kept: newest of its host"
    )
    assert "kept" not in next(line for line in lines if "2026-10-24" in line)


@pytest.mark.parametrize(
    ("low", "high"), [(10, 10), (10, 5), (-1, 5), (5, 101), (float("nan"), 5)]
)
def test_impossible_limits_are_refused(low: float, high: float) -> None:
    with pytest.raises(UsageError):
        run.choose_limits(low, high)


def test_command_line_beats_the_settings_file(monkeypatch: pytest.MonkeyPatch) -> None:
    known = settings.ServerSettings(min_percent=3, max_percent=30)
    monkeypatch.setattr(settings, "load", lambda: known)
    assert run.choose_limits(None, None) == Limits(3, 30)
    assert run.choose_limits(20, None) == Limits(20, 30)
    assert run.choose_limits(None, 4) == Limits(3, 4)
    assert run.choose_limits(1, 2) == Limits(1, 2)


# --- Backups that are suddenly different -------------------------------------------


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


# --- Lopsided room -----------------------------------------------------------------


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


# --- What crashes leave behind -----------------------------------------------------


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


def test_the_list_shows_what_each_deletion_gives_back(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, newer = volume.add("a", 10, 2)
    monkeypatch.setattr(sizes, "expected_from_each", lambda *_: {older.name: 3 << 30})
    shown = {line.split()[0]: line for line in volume.pruner().listing()}
    assert "  ~3 GiB  " in shown[f"a/{older.name}"]
    assert "GiB" not in shown[f"a/{newer.name}"]
