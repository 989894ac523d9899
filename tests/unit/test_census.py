"""The counting of files in new snapshots."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from byteback.model.free_space import FreeSpace
from byteback.server.accounting import (
    bounded_walk,
    file_count,
    ledger,
    ledger_file,
)
from byteback.server.store.layout import Store
from byteback.system.btrfs import commands

DAY = 86400.0
NAMES = tuple(f"2026-11-{day:02d}T12:00+0000" for day in range(10, 20))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store with one client."""
    monkeypatch.setattr(commands, "is_subvolume", Path.is_dir)
    monkeypatch.setattr(commands, "free_space", lambda _: FreeSpace(50, 100, None))
    made = Store(tmp_path)
    (made.host_directory("a") / "current").mkdir(parents=True)
    made.state.mkdir()
    return made


@pytest.fixture
def back_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a backup of so many names, some days ago, with its snapshot."""

    def make(name: str, names: int, days: float, result: str = "whole") -> None:
        path = store.host_directory("a") / name
        path.mkdir()
        for number in range(names):
            (path / str(number)).touch()
        then = time.time() - days * DAY
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "time", SimpleNamespace(time=lambda: then))
            push = ledger.begin_transfer(store, "a", "", "push")
            ledger.end_transfer(store, push, ledger.TransferEnd(result, 0, 1, 1))
            patch.setattr(ledger, "time", SimpleNamespace(time=lambda: then + 60))
            ledger.add_snapshot(store, "a", name, incomplete=False, files=None)

    return make


def counted(store: Store) -> list[int | None]:
    return [push.names for push in ledger.host_records(store)["a"].pushes]


def test_each_new_snapshot_is_counted_once(
    store: Store, back_up: Callable[..., None]
) -> None:
    back_up(NAMES[0], 3, 2)
    back_up(NAMES[1], 5, 1, "partial")
    file_count.count_new(store)
    assert counted(store) == [3, 5]
    (store.host_directory("a") / NAMES[0] / "another").touch()
    file_count.count_new(store)
    assert counted(store) == [3, 5]
    assert ledger.uncounted(store) == []


def test_pushes_without_a_snapshot_of_theirs_are_not(
    store: Store, back_up: Callable[..., None]
) -> None:
    back_up(NAMES[0], 3, 2, "failed")
    back_up(NAMES[1], 3, 1)
    ledger.begin_transfer(store, "a", "", "push")
    file_count.count_new(store)
    assert counted(store) == [None, 3, None]


def test_what_is_gone_is_not_looked_for_again(
    store: Store, back_up: Callable[..., None]
) -> None:
    back_up(NAMES[0], 3, 1)
    (store.host_directory("a") / NAMES[0]).rename(store.root / "elsewhere")
    file_count.count_new(store)
    assert counted(store) == [None]
    assert ledger.uncounted(store) == []


def test_the_newest_come_first_when_time_is_short(
    store: Store, back_up: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        back_up(NAMES[number], number, 3 - number)
    # One moment for the deadline, one for each snapshot.
    moments = iter([0.0, 0.0, file_count.ALL_COUNTS_S - 1, file_count.ALL_COUNTS_S + 1])
    clock = SimpleNamespace(monotonic=lambda: next(moments), time=time.time)
    monkeypatch.setattr(file_count, "time", clock)
    monkeypatch.setattr(
        file_count, "count_names", lambda path, _: NAMES.index(Path(path).name)
    )
    file_count.count_new(store)
    assert counted(store) == [None, 1, 2]


def test_a_tree_too_large_to_count_is_given_up(
    store: Store, back_up: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(NAMES[0], 3, 1)
    monkeypatch.setattr(file_count, "count_names", lambda *_: None)
    file_count.count_new(store)
    assert ledger.uncounted(store) == []
    assert counted(store) == [None]


def test_a_host_with_few_names_left_is_told_of(
    store: Store, back_up: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):
        back_up(NAMES[number], 300 if number < 3 else 10, 4 - number)
        file_count.count_new(store)
    assert [line for line in caplog.messages if "only 10 files" in line]
    caplog.clear()
    file_count.count_new(store)
    assert caplog.messages == []


def test_without_a_ledger_nothing_is_counted(store: Store) -> None:
    file_count.count_new(store)
    assert not ledger_file.path(store).exists()


def test_links_are_not_followed(store: Store, tmp_path: Path) -> None:
    current = store.current("a")
    (current / "d" / "e").mkdir(parents=True)
    (current / "d" / "f").touch()
    (current / "link").symlink_to(tmp_path)
    assert file_count.count_names(os.fspath(current)) == 4


def test_counting_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    current = store.current("a")
    (current / "d").mkdir()
    assert file_count.count_names(os.fspath(current), timeout_s=0) is None
    monkeypatch.setattr(bounded_walk, "MAX_WAITING", 0)
    assert file_count.count_names(os.fspath(current)) is None


def test_a_name_that_cannot_be_looked_at_ends_its_directory_alone(
    tmp_path: Path,
) -> None:
    for name in ("a/one", "a/two", "b/one", "b/two"):
        (tmp_path / name).mkdir(parents=True)

    def look(entry: os.DirEntry[str]) -> str:
        if entry.path.startswith(f"{tmp_path}/a/"):
            raise FileNotFoundError  # it went meanwhile
        return entry.path

    seen = set(bounded_walk.walk(os.fspath(tmp_path), math.inf, look))
    assert seen == {f"{tmp_path}/{name}" for name in ("a", "b", "b/one", "b/two")}
