"""Runs that make indexes meet each other, full discs, and clients that mean ill."""

from __future__ import annotations

import errno
import os
import resource
import time
import weakref
from collections.abc import Callable, Container, Iterator
from pathlib import Path

import pytest

from byteback.model.glob.pattern import compile_patterns
from byteback.model.listing import Entry
from byteback.server.search import indexing, name_index, walk
from byteback.server.store import state, tree
from byteback.server.store.layout import Store
from byteback.server.store.state import Transfer
from tests.integration.programs import run_program
from tests.integration.test_name_index import FIRST, SECOND, covered, find, load
from tests.integration.test_name_index import store as store  # noqa: PLC0414 # fixture
from tests.integration.test_search import HOST, snapshot


def paths(entries: list[Entry]) -> list[str]:
    return [entry.path for entry in entries]


def left_over(store: Store) -> list[str]:
    return [path.name for path in (store.state / "hosts").glob("*.names*")]


def count_makings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    made: list[Path] = []
    real = walk.directories

    def counted(search: walk.Search) -> Iterator[object]:
        made.append(search.directory)
        return real(search)

    monkeypatch.setattr(walk, "directories", counted)
    return made


def test_two_runs_at_once_do_not_spoil_an_index(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        (store.current(HOST) / f"{number}").mkdir()
        (store.current(HOST) / f"{number}" / f"file-{number}").touch()
    real = walk.directories
    runs: list[int] = []

    def interrupted(search: walk.Search) -> Iterator[object]:
        runs.append(1)
        for number, found in enumerate(real(search)):
            if number == 10 and len(runs) == 1:
                indexing.index_new(store)
            yield found

    monkeypatch.setattr(walk, "directories", interrupted)
    indexing.index_new(store)
    assert len(runs) == 1
    assert covered(store) == {"current"}
    for number in range(20):
        wanted = [f"/{number}/file-{number}"]
        assert paths(find(store, [f"/**/file-{number}"])) == wanted


def test_where_nothing_can_be_written_pruning_goes_on(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    snapshot(store, FIRST)
    hosts = store.state / "hosts"
    hosts.rename(hosts.with_name("away"))
    indexing.index_new(store)
    assert not caplog.messages
    hosts.touch()
    indexing.index_new(store)
    assert "no indexes of names are made: " in caplog.text


def test_a_snapshot_that_goes_meanwhile_takes_no_names_along(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store.current(HOST) / "deep").mkdir()
    (store.current(HOST) / "deep" / "file").touch()
    snapshot(store, FIRST)
    real = walk._open_root

    def too_late(*words: object) -> None:
        real(*words)  # type: ignore[arg-type] # as they are
        path = store.host_directory(HOST) / FIRST
        run_program(["btrfs", "subvolume", "delete", path])

    with monkeypatch.context() as patch:
        patch.setattr(walk, "_open_root", too_late)
        indexing.index_new(store)
    assert paths(find(store, ["/**/file"])) == ["/deep/file"]
    assert covered(store) == set()
    indexing.index_new(store)
    assert covered(store) == {"current"}
    assert paths(find(store, ["/**/file"])) == ["/deep/file"]


def test_what_is_changed_by_hand_is_found_at_once(store: Store) -> None:
    """btrfs counts transactions, and one may last for half a minute."""
    (store.current(HOST) / "deep").mkdir()
    indexing.index_new(store)
    assert covered(store) == {"current"}
    (store.current(HOST) / "deep" / "new").touch()
    assert paths(find(store, ["/**/new"])) == ["/deep/new"]


def test_a_sealed_snapshot_that_root_wrote_to_is_not_covered(store: Store) -> None:
    (store.current(HOST) / "deep").mkdir()
    snapshot(store, FIRST)
    path = store.host_directory(HOST) / FIRST
    read_only: list[str | Path] = ["btrfs", "property", "set", path, "ro"]
    run_program([*read_only, "false"])
    path.chmod(0o550)  # which is what a seal looks like, to a search
    run_program([*read_only, "true"])
    indexing.index_new(store)
    assert covered(store) == {"current", FIRST}
    run_program([*read_only, "false"])
    (path / "deep" / "new").touch()
    run_program([*read_only, "true"])
    assert paths(find(store, ["/**/new"])) == ["/deep/new"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), MemoryError()])
def test_what_fails_leaves_nothing_lying_about(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_AS)

    def fail(_: object) -> None:
        raise error

    (store.current(HOST) / "file").touch()
    with monkeypatch.context() as patch:
        if isinstance(error, OSError):
            patch.setattr(os, "fsync", fail)
        else:
            patch.setattr(walk, "directories", fail)
        indexing.index_new(store)
    assert left_over(store) in ([], [f"{HOST}.names"])
    assert load(store) is None
    assert resource.getrlimit(resource.RLIMIT_AS) == limits


def test_what_killed_runs_and_gone_clients_left_is_taken_away(store: Store) -> None:
    hosts = store.state / "hosts"
    for name in (f"{HOST}.names-new", "gone.names-new", "gone.names"):
        (hosts / name).touch()
    indexing.index_new(store)
    assert left_over(store) == [f"{HOST}.names"]
    indexing.index_new(store)
    assert covered(store) == {"current"}


def test_what_takes_long_is_not_made_after_each_transfer(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two clients who transfer all the time would leave no time to others."""
    made = count_makings(monkeypatch)
    for taken, is_made in ((2.0, True), (100.0, False)):
        name_index.write(name_index.path_of(store, HOST), [], {}, taken=taken)
        state.write(store, HOST, Transfer.WHOLE)
        made.clear()
        indexing.index_new(store)
        assert bool(made) == is_made
    later = time.time() + name_index.SHARE * 100.0
    for now in (later, later - 1e7):  # the clock may have been set back, too
        monkeypatch.setattr(time, "time", lambda now=now: now)
        name_index.write(name_index.path_of(store, HOST), [], {}, taken=100.0)
        state.write(store, HOST, Transfer.WHOLE)
        then = now + (1e5 if now == later else -1e5)
        monkeypatch.setattr(time, "time", lambda then=then: then)
        made.clear()
        indexing.index_new(store)
        assert made


def test_of_large_directories_one_listing_is_kept_at_a_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Listed(dict[str, bool]):
        """One that can be watched."""

    real: Callable[[int | None, Container[str] | None], tree.Names]
    real = tree.list_directory
    alive: weakref.WeakSet[Listed] = weakref.WeakSet()
    most: list[int] = []

    def watched(fd: int | None, only: Container[str] | None) -> tree.Names:
        names = Listed(real(fd, only))
        alive.add(names)
        most.append(len(alive))
        return names

    Listed.__hash__ = object.__hash__  # type: ignore[assignment] # each is itself
    for day in range(1, 7):
        (store.current(HOST) / f"{day}").touch()
        snapshot(store, f"2026-01-{day:02d}T00:00+0000")
    monkeypatch.setattr(tree, "list_directory", watched)
    indexing.index_new(store)
    assert len(covered(store)) == 7
    assert len(most) >= 6
    assert max(most) <= 2


def test_deep_trees_are_not_too_many_files(store: Store) -> None:
    path = store.current(HOST)
    for _ in range(100):
        path /= "d"
        path.mkdir()
    snapshot(store, SECOND)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (80, hard))
    try:
        indexing.index_new(store)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert covered(store) == {"current", SECOND}


def test_of_one_directory_no_other_is_looked_through(store: Store) -> None:
    for top in ("a", "b"):
        (store.current(HOST) / top / "deep").mkdir(parents=True)
        (store.current(HOST) / top / "deep" / "file").touch()
    indexing.index_new(store)
    index = load(store)
    assert index is not None
    for pattern in ("/a/**/file", "/a/**/f*", "/b/**/file", "/b/**/f*"):
        found = find(store, [pattern])
        assert paths(found) == [f"/{pattern[1]}/deep/file"]
        led = index.lead(["current"], compile_patterns([pattern]), lambda: None)
        assert led == {"", f"/{pattern[1]}", f"/{pattern[1]}/deep"}
