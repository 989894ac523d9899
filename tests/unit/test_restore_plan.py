"""Where restored files go, and which of the backup's flags are kept away from them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from byteback.client.restore.plan import (
    choose_layout,
    directories_above,
    plan_batches,
)
from byteback.client.restore.pull import Change, parse_change, safe_flags
from byteback.errors import UsageError
from byteback.model.listing import Entry

OLD, NEW = "2026-11-20T20:15+0000", "2026-11-22T20:15+0000"
HERE = Path("/here")


def entry(path: str, snapshot: str = "current", *, directory: bool = False) -> Entry:
    """An entry of which only the place matters."""
    kind = stat.S_IFDIR if directory else stat.S_IFREG
    return Entry(snapshot, path, kind | 0o755, 0, 0, 0, 0)


def test_each_snapshot_has_its_own_directory_by_default() -> None:
    """And the newest is fetched last."""
    entries = [entry("/a"), entry("/b", OLD), entry("/c", NEW)]
    batches = plan_batches(entries, choose_layout(HERE), current_is_whole=True)
    assert [(b.snapshot, b.directory) for b in batches] == [
        (OLD, HERE / OLD),
        (NEW, HERE / NEW),
        ("current", HERE / "current"),
    ]


def test_to_and_in_place_add_no_directories() -> None:
    """But for the versions that only their snapshots tell apart."""
    to = choose_layout(HERE, to=Path("x"))
    assert (to.directory, to.by_snapshot, to.keeps_newer) == (HERE / "x", False, True)
    assert choose_layout(HERE, to=Path("/x"), every_version=True).by_snapshot
    assert choose_layout(HERE, in_place=True).directory == Path("/")
    assert not choose_layout(HERE, in_place=True, overwrite=True).keeps_newer


@pytest.mark.parametrize(
    "options",
    [
        {"to": Path("x"), "in_place": True},
        {"in_place": True, "every_version": True},
        {"overwrite": True},
    ],
)
def test_contradictions_are_refused(options: dict[str, bool]) -> None:
    """Rather than guessed at."""
    with pytest.raises(UsageError):
        choose_layout(HERE, **options)  # type: ignore[arg-type] # on purpose mixed


def test_nothing_is_fetched_twice() -> None:
    """What lies in a directory comes with it, if it is of the same snapshot."""
    entries = [
        entry("/etc", directory=True),
        entry("/etc/a"),
        entry("/etc.conf"),
        entry("/etc/sub/b"),
        entry("/etc/gone", OLD),
    ]
    old, current = plan_batches(entries, choose_layout(HERE), current_is_whole=True)
    assert current.names == ["etc", "etc.conf"]
    assert old.names == ["etc/gone"]
    [everything] = plan_batches(
        [entry("/", directory=True), entry("/a")],
        choose_layout(HERE),
        current_is_whole=True,
    )
    assert everything.names == ["./"]


def test_directories_above() -> None:
    """Upper ones first, each once, none for what is in the root."""
    assert directories_above(["a/b/c", "a/d", "e"]) == ["a", "a/b"]
    assert directories_above(["./"]) == []


def test_flags_that_delete_or_move_are_dropped() -> None:
    """rsync_flags is read by the backup as well."""
    flags = [
        *("--compress", "--delete", "--delete-after", "--del", "--bwlimit", "9"),
        *("--remove-source-files", "--inplace", "--max-delete", "5"),
        *("--max-delete=5", "--partial-dir=x", "--partial-dir", "y", "-z"),
    ]
    assert safe_flags(flags) == ["--compress", "--bwlimit", "9", "-z"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (">f+++++++++ 7 etc/hosts", Change("create", "etc/hosts", 7)),
        (">f.st...... 2 a b", Change("replace", "a b", 2)),
        ("cd+++++++++ 0 etc/", Change("create", "etc/")),
        (".d..t...... 0 etc/", Change("adjust", "etc/", 0, True)),
        ("cL+++++++++ 1 l -> x\\#012", Change("create", "l -> x\n", 1)),
        (">f+++++++++ 3 1 is newer", Change("create", "1 is newer", 3)),
        (">f+++++++++ etc/hosts", None),
        ("hf          9 b", Change("adjust", "b", 9)),
        ("hf..t...... 9 b", Change("replace", "b", 9)),
        ("Number of files: 5 (reg: 3)", None),
        ("created directory /x", None),
        ("", None),
    ],
)
def test_itemized_lines(line: str, expected: Change | None) -> None:
    """Only lines about files are changes."""
    assert parse_change(line) == expected
