"""A search over btrfs snapshots finds what looking at every file of each finds."""

from __future__ import annotations

import itertools
import os
import random
import stat
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from byteback.model import listing
from byteback.model.difference import Difference, compare
from byteback.model.glob import pattern
from byteback.model.glob.pattern import Deep, Literal, Pattern
from byteback.model.listing import Entry
from byteback.server.search import run
from byteback.server.snapshots import lineage
from byteback.server.store import tree
from byteback.server.store.layout import Store
from byteback.system.btrfs import subvolume
from tests.integration.programs import run_program

HOST = "client.example"
NAMES = ["a", "b", "c", ".h", "ab"]
PATTERNS = [
    ["/**/a"],
    ["/**/{a,b}/*"],
    ["/a/**/*"],
    ["/**/*"],
    ["/**/.h"],
    ["/**/"],
    ["/*/b*", "/**/.h/**/c"],
    ["/a", "/a/b", "/b/a/c"],
    ["/a/*/c/"],
]
SCOPES = ["newest", "versions", "copies"]


@pytest.fixture
def store(btrfs_volume: Path) -> Store:
    """A client with an empty ``current``."""
    made = Store(btrfs_volume)
    made.host_directory(HOST).mkdir()
    run_program(["btrfs", "subvolume", "create", made.current(HOST)])
    return made


def snapshot(
    store: Store, name: str, *, source: str = "current", flag: str = "-r"
) -> None:
    """Snapshot one of the client's trees under a name."""
    directory = store.host_directory(HOST)
    words = [flag] if flag else []
    run_program(
        ["btrfs", "subvolume", "snapshot", *words, directory / source, directory / name]
    )


def change(top: Path, chance: random.Random) -> None:
    """Something that a backup may do to a tree, or worse."""
    paths = [Path(d) / n for d, ds, fs in os.walk(top) for n in ds + fs]
    directories = [top, *(path for path in paths if path.is_dir())]
    target = chance.choice(directories) / chance.choice(NAMES)
    victim = chance.choice(paths) if paths else target
    try:
        match chance.randrange(8):
            case 0 | 1:
                target.mkdir()
            case 2:
                target.write_text("x" * chance.randrange(3))
            case 3:
                os.utime(victim, (chance.randrange(3), chance.randrange(3)))
            case 4:
                victim.rename(target)  # directories with all that is in them, too
            case 5:
                os.link(victim, target)
            case 6 if victim.is_dir():
                victim.rmdir()
            case _:
                victim.unlink()
    except OSError:
        pass


def naive(
    store: Store, trees: Sequence[str], patterns: Sequence[Pattern], scope: str
) -> list[Entry]:
    """The names that a search must find, by looking at everything."""
    copies: dict[str, list[Entry]] = {}
    for name in trees:  # newest first
        for entry in everything(store.host_directory(HOST) / name, name):
            if any(is_match(entry, one) for one in patterns):
                copies.setdefault(entry.path, []).append(entry)
    found = []
    for path in sorted(copies, key=by_names):
        found += chosen(copies[path], scope)
    return found


def chosen(copies: list[Entry], scope: str) -> list[Entry]:
    if scope == "newest":
        return copies[:1]
    if scope == "copies":
        return copies[::-1]
    versions: dict[tuple[int, int], list[Entry]] = {}
    for entry in copies:
        versions.setdefault((entry.mtime_ns, entry.size), []).append(entry)
    return [
        same[0]._replace(first_seen=same[-1].snapshot) for same in versions.values()
    ]


def everything(top: Path, name: str) -> Iterator[Entry]:
    for directory, directories, files in os.walk(top):
        fd = os.open(directory, os.O_RDONLY)
        if directory == str(top):
            yield tree.read_entry(name, "/", fd, ".", top.stat())
        for one in directories + files:
            path = "/" + str((Path(directory) / one).relative_to(top))
            yield tree.read_entry(name, path, fd, one, os.lstat(Path(directory, one)))
        os.close(fd)


def is_match(entry: Entry, one: Pattern) -> bool:
    if one.directories_only and not stat.S_ISDIR(entry.mode):
        return False
    return matches(
        entry.path.split("/")[1:] if entry.path != "/" else [], list(one.components)
    )


def matches(parts: list[str], components: list[pattern.Component]) -> bool:
    if not components:
        return not parts
    first, *rest = components
    if isinstance(first, Deep):
        if matches(parts, rest):
            return True
        return bool(parts) and parts[0][0] != "." and matches(parts[1:], components)
    if not parts:
        return False
    if isinstance(first, Literal):
        return parts[0] == first.name and matches(parts[1:], rest)
    return first.matches(parts[0]) and matches(parts[1:], rest)


@pytest.mark.parametrize("seed", range(4))
def test_finds_what_a_naive_search_finds(store: Store, seed: int) -> None:
    """Whatever happened between snapshots, and whoever meddled with them."""
    chance = random.Random(seed)  # noqa: S311 # dice, no secret
    for number in range(12):
        for _ in range(chance.choice([0, 2, 30])):
            change(store.current(HOST), chance)
        # Names say nothing about time: some are of a wrong clock.
        day = chance.randrange(10, 29) if number % 5 == 0 else number + 1
        name = f"2026-01-{day:02d}T{number:02d}:00+0000"
        snapshot(store, name, flag=chance.choice(["-r", "-r", "-r", ""]))
        if number == 6:
            snapshot(store, "saved", source=name)
        if number == 8:  # one that is writable, and was written to
            snapshot(store, "2026-01-31T00:00+0000", flag="")
            for _ in range(10):
                change(store.host_directory(HOST) / "2026-01-31T00:00+0000", chance)
    for _ in range(5):
        change(store.current(HOST), chance)
    names = store.trees(HOST)
    chains = lineage.chains_of(lineage.read_trees(store.host_directory(HOST), names))
    assert max(len(chain) for chain in chains) >= 12
    for texts in PATTERNS:
        compiled = pattern.compile_patterns(texts)
        for scope in SCOPES:
            for whole in (True, False):
                trees = listing.rank_trees(
                    names, current_is_whole=whole, now=datetime.now(UTC)
                )
                found = run.find(
                    *(store, HOST, "*", scope, texts),
                    current_is_whole=whole,
                    chains=chains,
                )
                assert list(found) == naive(store, trees, compiled, scope)


def naive_differences(
    store: Store, newer: str, older: str, patterns: Sequence[Pattern]
) -> list[Difference]:
    """The names that a comparison must find: all that match, or lie below."""
    copies: list[dict[str, Entry]] = []
    for name in (newer, older):
        entries = list(everything(store.host_directory(HOST) / name, name))
        tops = {e.path for e in entries if any(is_match(e, one) for one in patterns)}
        copies.append({e.path: e for e in entries if is_in(e.path, tops)})
    paths = sorted(copies[0].keys() | copies[1].keys(), key=by_names)
    found = [compare(copies[0].get(path), copies[1].get(path)) for path in paths]
    return [difference for difference in found if difference is not None]


def by_names(path: str) -> list[str]:
    return path.rstrip("/").split("/")


def is_in(path: str, tops: set[str]) -> bool:
    return path in tops or "/" in tops or any(path.startswith(f"{t}/") for t in tops)


@pytest.mark.parametrize("seed", range(3))
def test_differences_are_those_of_a_naive_comparison(store: Store, seed: int) -> None:
    """Between any two, whether or not one came from the other."""
    chance = random.Random(seed)  # noqa: S311 # dice, no secret
    for number in range(4):
        for _ in range(chance.choice([3, 30])):
            change(store.current(HOST), chance)
        snapshot(store, f"2026-01-0{number + 1}T00:00+0000")
    for _ in range(5):
        change(store.current(HOST), chance)
    names = store.trees(HOST)
    chains = lineage.chains_of(lineage.read_trees(store.host_directory(HOST), names))
    for newer, older in itertools.product(names, names):
        for texts in ["/"], ["/a"], ["/**/b", "/a/*/"], ["/.h"]:
            compiled = pattern.compile_patterns(texts)
            for known in (chains, ()):
                found = run.changes(
                    *(store, HOST, newer, older, texts),
                    current_is_whole=True,
                    chains=known,
                )
                assert list(found) == naive_differences(store, newer, older, compiled)


def test_only_untouched_snapshots_are_in_chains(store: Store) -> None:
    """Of one subvolume, in the order in which they were made."""
    current = store.current(HOST)
    for day in (3, 1, 2):
        (current / f"{day}").touch()
        snapshot(store, f"2026-01-{day:02d}T00:00+0000", flag="")
    (store.host_directory(HOST) / "2026-01-01T00:00+0000/1").unlink()
    (store.host_directory(HOST) / "plain").mkdir()
    snapshot(store, "of-a-snapshot", source="2026-01-02T00:00+0000")
    directory = store.host_directory(HOST)
    assert lineage.chains_of(lineage.read_trees(directory, store.trees(HOST))) == [
        ["current", "2026-01-02T00:00+0000", "2026-01-03T00:00+0000"]
    ]
    meddled = directory / "2026-01-02T00:00+0000"
    run_program(["btrfs", "property", "set", meddled, "ro", "false"])
    (meddled / "1").unlink(missing_ok=True)
    run_program(["btrfs", "property", "set", meddled, "ro", "true"])
    assert lineage.chains_of(lineage.read_trees(directory, store.trees(HOST))) == [
        ["current", "2026-01-03T00:00+0000"]
    ]
    fd = os.open("/proc", os.O_RDONLY)
    assert subvolume.read(fd) is None
    os.close(fd)


def test_unchanged_directories_are_looked_at_twice(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many snapshots there are."""
    for name in NAMES:
        (store.current(HOST) / name / "below").mkdir(parents=True)
    for day in range(1, 21):
        (store.current(HOST) / "a" / "below" / f"{day}").touch()
        snapshot(store, f"2026-01-{day:02d}T00:00+0000")
    chains = lineage.chains_of(
        lineage.read_trees(store.host_directory(HOST), store.trees(HOST))
    )
    looked: list[str] = []
    real = tree.status

    def counted(parent: int, name: str) -> os.stat_result | None:
        looked.append(name)
        return real(parent, name)

    monkeypatch.setattr(tree, "status", counted)
    found = run.find(
        store, HOST, "*", "newest", ["/**/1"], current_is_whole=True, chains=chains
    )
    assert [entry.path for entry in found] == ["/a/below/1"]
    assert looked.count("b") == 2
    assert looked.count("below") < 21 + 2 * 3 + 1


def test_a_tree_that_cannot_be_entered_has_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client can send a root directory of mode 0, and nobody but root enters it."""
    (store.current(HOST) / "a").touch()
    monkeypatch.setattr(tree, "open_root", lambda _: None)
    for texts in PATTERNS:
        found = run.find(store, HOST, "*", "newest", texts, current_is_whole=True)
        assert list(found) == []
