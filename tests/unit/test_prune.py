"""The decisions of one pruning run, on a pretended volume."""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from byteback import locking
from byteback.errors import LockedError, PolicyError, ToolError, UsageError
from byteback.model.free_space import Limits
from byteback.model.retention import RankedSnapshot
from byteback.model.snapshot import format_snapshot_name
from byteback.model.status import PruneFault
from byteback.server.accounting import sizes
from byteback.server.prune import limits, report, run
from byteback.server.prune.removal import Remover
from byteback.server.store import marks, settings
from byteback.system import privilege
from byteback.system.btrfs import commands
from tests.unit.pretended_volume import LIMITS, NOW, RUN_NOTES, Volume
from tests.unit.pretended_volume import volume as volume  # noqa: PLC0414


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
        limits.choose_limits(low, high)


def test_command_line_beats_the_settings_file(monkeypatch: pytest.MonkeyPatch) -> None:
    known = settings.ServerSettings(min_percent=3, max_percent=30)
    monkeypatch.setattr(settings, "load", lambda: known)
    assert limits.choose_limits(None, None) == Limits(3, 30)
    assert limits.choose_limits(20, None) == Limits(20, 30)
    assert limits.choose_limits(None, 4) == Limits(3, 4)
    assert limits.choose_limits(1, 2) == Limits(1, 2)


def test_the_list_shows_what_each_deletion_gives_back(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, newer = volume.add("a", 10, 2)
    monkeypatch.setattr(sizes, "expected_from_each", lambda *_: {older.name: 3 << 30})
    shown = {line.split()[0]: line for line in volume.pruner().listing()}
    assert "  ~3 GiB  " in shown[f"a/{older.name}"]
    assert "GiB" not in shown[f"a/{newer.name}"]
