"""With an index a search looks at less and finds the same, or does without it."""

from __future__ import annotations

import random
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from byteback.errors import RefusedError
from byteback.model.free_space import Limits
from byteback.model.listing import Entry
from byteback.server.prune.run import Pruner
from byteback.server.search import index_part, indexing, name_index, run
from byteback.server.store import state, tree
from byteback.server.store.layout import Store
from byteback.server.store.state import Transfer
from tests.integration.programs import run_program
from tests.integration.test_search import HOST, PATTERNS, SCOPES, change, snapshot

ODD = "line\nfeed \udcff"
MORE_PATTERNS = [
    [f"/**/{name}" for name in ("a", "c")],
    ["/**/{a,b,c,ab,.h,x,y,z,none}"],  # more than are sought one by one
    ["/a/**/b*"],
    ["/**/none"],
    ["/**/.h/*"],
    ["/**/a", "/b"],
    ["/", "/**/ab"],
    ["/**/line*"],
    ["/a/**/b"],
    ["/a/b/**/c", "/a/b/c"],
    ["/a/b/**/[ab]", "/a/**/.h"],
    ["/a/none/**/*", "/a/none/**/a"],
    [f"/**/{ODD}"],
]
FIRST, SECOND = "2026-01-01T00:00+0000", "2026-01-02T00:00+0000"


@pytest.fixture
def store(btrfs_volume: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A client that was backed up to the end, into an empty ``current``."""
    # An index that took long is not made anew soon, and a busy machine may stand still.
    monkeypatch.setattr(name_index, "CHEAP_S", 90.0)
    made = Store(btrfs_volume)
    made.host_directory(HOST).mkdir()
    run_program(["btrfs", "subvolume", "create", made.current(HOST)])
    made.lock_path(HOST).parent.mkdir(parents=True)
    state.write(made, HOST, Transfer.WHOLE)
    return made


def load(store: Store) -> name_index.Index | None:
    return run.read_history(store, HOST)[1]


def covered(store: Store) -> set[str]:
    index = load(store)
    return set() if index is None else set(index.covered)


def find(
    store: Store, texts: list[str], scope: str = "newest", *, with_index: bool = True
) -> list[Entry]:
    chains, index = run.read_history(store, HOST)
    found = run.find(
        *(store, HOST, "*", scope, texts),
        current_is_whole=True,
        chains=chains,
        index=index if with_index else None,
    )
    return list(found)


@pytest.mark.parametrize("seed", range(4))
def test_finds_the_same_with_and_without(store: Store, seed: int) -> None:
    """Without an index a search finds what a naive one does: see test_search.py."""
    chance = random.Random(seed)  # noqa: S311 # dice, no secret
    for day in range(1, 9):
        for _ in range(chance.choice([2, 30])):
            change(store.current(HOST), chance)
        for path in [*store.current(HOST).rglob("*")][: day % 3]:
            if path.is_dir():
                (path / ODD).touch()
        snapshot(store, f"2026-01-{day:02d}T00:00+0000")
    for _ in range(5):
        change(store.current(HOST), chance)
    run_program(["btrfs", "filesystem", "sync", store.root])
    indexing.index_new(store)
    assert covered(store) == set(store.trees(HOST))
    found = 0
    for texts in PATTERNS + MORE_PATTERNS:
        for scope in SCOPES:
            entries = find(store, texts, scope)
            assert entries == find(store, texts, scope, with_index=False)
            found += len(entries)
    assert found


def test_only_directories_with_such_names_are_opened(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        (store.current(HOST) / f"{number}" / "below").mkdir(parents=True)
    (store.current(HOST) / "7" / "below" / "file").touch()
    snapshot(store, FIRST)
    run_program(["btrfs", "filesystem", "sync", store.root])
    indexing.index_new(store)
    opened: list[str] = []
    real = tree.open_directory

    def counted(parent: int, name: str) -> int | None:
        opened.append(name)
        return real(parent, name)

    monkeypatch.setattr(tree, "open_directory", counted)
    for pattern in ("/**/file", "/**/fil?"):
        opened.clear()
        assert [entry.path for entry in find(store, [pattern])] == ["/7/below/file"]
        assert set(opened) == {"7", "below"}
        assert len(opened) <= 2 * 2  # in current and in the snapshot
    opened.clear()
    assert len(find(store, ["/**/file"], with_index=False)) == 1
    assert len(opened) >= 100


def test_what_changed_since_is_never_overlooked(store: Store) -> None:
    current = store.current(HOST)
    (current / "old").touch()
    snapshot(store, FIRST)
    run_program(["btrfs", "filesystem", "sync", store.root])
    indexing.index_new(store)
    assert covered(store) == {"current", FIRST}
    # A transfer begins, and nobody has committed anything yet.
    state.write(store, HOST, Transfer.RUNNING)
    (current / "deep").mkdir()
    (current / "deep" / "new").touch()
    assert covered(store) == {FIRST}
    assert [entry.path for entry in find(store, ["/**/new"])] == ["/deep/new"]
    indexing.index_new(store)  # not now
    assert covered(store) == {FIRST}
    state.write(store, HOST, Transfer.WHOLE)
    assert covered(store) == {FIRST}
    snapshot(store, SECOND)
    assert [entry.path for entry in find(store, ["/**/new"])] == ["/deep/new"]
    indexing.index_new(store)
    assert covered(store) == {"current", FIRST, SECOND}
    assert [entry.path for entry in find(store, ["/**/new"])] == ["/deep/new"]
    # What pruning takes away is no reason for a new one.
    written = name_index.path_of(store, HOST).stat().st_mtime_ns
    run_program(["btrfs", "subvolume", "delete", store.host_directory(HOST) / FIRST])
    indexing.index_new(store)
    assert name_index.path_of(store, HOST).stat().st_mtime_ns == written
    assert covered(store) == {"current", SECOND}


def test_trees_that_somebody_wrote_to_are_not_covered(store: Store) -> None:
    for name in (FIRST, SECOND):
        snapshot(store, name)
    indexing.index_new(store)
    assert covered(store) == {"current", FIRST, SECOND}
    meddled = store.host_directory(HOST) / SECOND
    run_program(["btrfs", "property", "set", meddled, "ro", "false"])
    (meddled / "by-hand").touch()
    (store.current(HOST) / "by-hand").touch()
    run_program(["btrfs", "filesystem", "sync", store.root])
    assert covered(store) == {FIRST}
    assert [entry.snapshot for entry in find(store, ["/**/by-hand"], "copies")] == [
        SECOND,
        "current",
    ]
    # Another one by the same name is another one.
    run_program(["btrfs", "subvolume", "delete", store.host_directory(HOST) / FIRST])
    snapshot(store, FIRST)
    assert covered(store) == set()
    assert len(find(store, ["/**/by-hand"], "copies")) == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"\0",
        lambda good: good[: len(good) // 2],
        lambda good: good[:-1],
        lambda good: good[:-4] + b"\xff" * 4,
        lambda good: good.replace(b'"version": 1', b'"version": 9'),
        lambda _: b"[]\0\0\0\2",
        lambda _: b"{}\0\0\0\2",
        lambda _: b"null\0\0\0\4",
    ],
)
def test_a_damaged_index_is_none(
    store: Store, damage: Callable[[bytes], bytes]
) -> None:
    (store.current(HOST) / "file").touch()
    snapshot(store, FIRST)
    run_program(["btrfs", "filesystem", "sync", store.root])
    indexing.index_new(store)
    place = name_index.path_of(store, HOST)
    good = place.read_bytes()
    place.write_bytes(damage(good))
    assert load(store) is None
    assert len(find(store, ["/**/file"])) == 1
    indexing.index_new(store)
    assert place.read_bytes().partition(b"{")[0] == good.partition(b"{")[0]
    assert covered(store) == {"current", FIRST}


def test_what_grows_too_large_is_given_up_until_the_next_backup(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store.current(HOST) / "file").touch()
    snapshot(store, FIRST)
    run_program(["btrfs", "filesystem", "sync", store.root])
    place = name_index.path_of(store, HOST)
    with monkeypatch.context() as small:
        small.setattr(name_index, "MAX_SIZE", 3)
        indexing.index_new(store)
    assert [path.name for path in place.parent.glob("*names*")] == [place.name]
    assert load(store) is None
    assert len(find(store, ["/**/file"])) == 1
    written = place.stat().st_mtime_ns
    indexing.index_new(store)
    assert place.stat().st_mtime_ns == written
    state.write(store, HOST, Transfer.WHOLE)
    indexing.index_new(store)
    assert covered(store) == {"current", FIRST}


def test_no_time_for_one_leaves_it_to_the_next_run(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot(store, FIRST)
    monkeypatch.setattr(indexing, "ALL_S", 0.0)
    indexing.index_new(store)
    assert not name_index.path_of(store, HOST).exists()


def test_so_many_directories_that_it_is_of_no_help(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        (store.current(HOST) / f"{number}").mkdir()
        (store.current(HOST) / f"{number}" / "same").touch()
    snapshot(store, FIRST)
    run_program(["btrfs", "filesystem", "sync", store.root])
    indexing.index_new(store)
    for limit in ("MAX_DIRECTORIES", "MAX_CHARACTERS"):
        with monkeypatch.context() as low:
            low.setattr(index_part, limit, 10)
            assert len(find(store, ["/**/same"])) == 20
            assert len(find(store, ["/**/sam?"])) == 20


def test_a_search_in_the_index_ends_in_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot(store, FIRST)
    run_program(["btrfs", "filesystem", "sync", store.root])
    indexing.index_new(store)
    monkeypatch.setattr(run, "MAX_SECONDS", 0.0)
    with pytest.raises(RefusedError, match="took too long"):
        find(store, ["/**/file"])


def test_a_disc_that_stays_full_gets_none(store: Store) -> None:
    snapshot(store, FIRST)  # the newest, which is never deleted
    Pruner(store).prune(Limits(99.8, 99.9))
    assert not name_index.path_of(store, HOST).exists()


def test_pruning_makes_it_and_takes_it_away(store: Store) -> None:
    (store.current(HOST) / "file").touch()
    snapshot(store, FIRST)
    store.state.chmod(0o700)
    Pruner(store).prune(Limits(0.001, 0.002))
    place = name_index.path_of(store, HOST)
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert covered(store) >= {FIRST}
    for name in ("current", FIRST):
        run_program(["btrfs", "subvolume", "delete", store.host_directory(HOST) / name])
    store.host_directory(HOST).rmdir()
    Pruner(store).prune(Limits(0.001, 0.002))
    assert not place.exists()
