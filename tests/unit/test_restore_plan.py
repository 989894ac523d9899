"""Where restored files go, and which of the backup's flags are kept away from them."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from byteback.client.restore.changes import Change, parse_change
from byteback.client.restore.plan import (
    choose_layout,
    directories_above,
    plan_batches,
)
from byteback.client.restore.pull import safe_flags
from byteback.errors import UsageError
from byteback.model.listing import Entry
from byteback.model.rsync_flags import FILTERS, LETTERS, VALUE_LETTERS, WITH_VALUE

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
    assert (to.directory, to.by_snapshot, to.keeps_newer) == (HERE / "x", False, False)
    assert choose_layout(HERE, to=Path("/x"), every_version=True).by_snapshot
    assert choose_layout(HERE, in_place=True).directory == Path("/")
    assert choose_layout(HERE, in_place=True, keep_newer=True).keeps_newer
    assert not choose_layout(HERE, in_place=True, overwrite=True).keeps_newer
    assert choose_layout(HERE, overwrite=True) == choose_layout(HERE)


@pytest.mark.parametrize(
    "options",
    [
        {"to": Path("x"), "in_place": True},
        {"in_place": True, "every_version": True},
        {"keep_newer": True},
        {"in_place": True, "keep_newer": True, "overwrite": True},
    ],
)
def test_contradictions_are_refused(options: dict[str, bool]) -> None:
    """Rather than guessed at."""
    with pytest.raises(UsageError):
        choose_layout(HERE, **options)  # type: ignore[arg-type] # on purpose mixed


def test_nothing_is_fetched_twice() -> None:
    """The contents of a directory come with it, if they are of the same snapshot."""
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


def test_flags_that_delete_move_or_leave_out_are_dropped() -> None:
    """rsync_flags is read by the backup as well."""
    flags = [
        *("--compress", "--delete", "--delete-after", "--del", "--bwlimit", "9"),
        *("--remove-source-files", "--inplace", "--max-delete", "5"),
        *("--max-delete=5", "--partial-dir=x", "--partial-dir", "y", "-zu"),
        *("--exclude", "*.o", "-f", "- *.a", "--ignore-existing", "--max-size=1G"),
    ]
    assert safe_flags(flags) == ["--compress", "--bwlimit=9", "-z"]


@pytest.mark.parametrize("name", sorted(FILTERS))
def test_no_filter_of_rsync_flags_reaches_a_restore(name: str) -> None:
    letters = [
        letter for letter, long in {**LETTERS, **VALUE_LETTERS}.items() if long == name
    ] + (["F", "FF", "zF"] if name == "F" else [])
    value = ["- *"] if name in WITH_VALUE else []
    spelled = [[f"--{name}", *value], *([f"-{letter}", *value] for letter in letters)]
    if value:
        spelled += [[f"--{name}=- *"], *([f"-{letter}- *"] for letter in letters)]
        spelled += [[f"-z{letter}", "- *"] for letter in letters]
    for words in spelled:
        assert safe_flags([*words, "-q"]) in ([], ["-z"]), words


@pytest.mark.parametrize(
    "flags",
    [
        ["--compare-dest=/srv/x"],
        ["--copy-dest", "/srv/x", "--link-dest=/srv/x"],
        ["--only-write-batch=/tmp/b", "--write-batch=/tmp/b"],
        ["--no-recursive", "--no-r", "--no-relative", "--no-R", "--no-from0"],
        ["--stop-after=5", "--time-limit", "5"],
    ],
)
def test_what_would_leave_out_files_otherwise_is_dropped(flags: list[str]) -> None:
    assert safe_flags(flags) == []


TIME = "1970/01/01-00:01:00"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f">f+++++++++ 7 {TIME} etc/hosts//", ("create", "etc/hosts", 7)),
        (f">f.st...... 2 {TIME} a b//", ("replace", "a b", 2)),
        (f"cd+++++++++ 0 {TIME} etc///", ("create", "etc/")),
        (f".d..t...... 0 {TIME} etc///", ("adjust", "etc/", 0, True)),
        (f".d..t...... 0 {TIME} .///", ("adjust", "./", 0, True)),
        (f"cL+++++++++ 1 {TIME} l -> x\\#012// -> //y", ("create", "l -> x\n", 1)),
        (f">f+++++++++ 3 {TIME} 1 is newer//", ("create", "1 is newer", 3)),
        (f"hf          9 {TIME} b// => a", ("adjust", "b", 9)),
        (f"hf..t...... 9 {TIME} b// => a\\#040", ("replace", "b", 9)),
    ],
)
def test_itemized_lines(line: str, expected: tuple[Any, ...]) -> None:
    """Names come back as the file system has them, whatever is in them."""
    found = parse_change(line)
    assert found is not None
    wanted = Change(*expected)
    assert (found.action, found.path, found.size) == (
        *(wanted.action, wanted.path, wanted.size),
    )
    assert found.is_only_time_of_directory == wanted.is_only_time_of_directory
    assert (found.file_type, found.mtime_s) == (line[1], 60)
    assert found.is_new == ("+" in line)
    assert found.leader == {"a": "a", "0": "a "}.get(line[-1] * (line[0] == "h"))


@pytest.mark.parametrize(
    "line",
    [
        f">f+++++++++ {TIME} etc/hosts//",
        f">f+++++++++ 7 {TIME} etc/hosts",
        "Number of files: 5 (reg: 3)",
        "created directory /x",
        "",
    ],
)
def test_other_lines_are_no_changes(line: str) -> None:
    assert parse_change(line) is None


@pytest.mark.parametrize("time", ["10000/01/01-00:00:00", "2026/02/30-00:00:00", "x"])
def test_times_that_no_calendar_holds(time: str) -> None:
    """They are no reason to think that a file were newer, or older."""
    found = parse_change(f">f+++++++++ 7 {time} etc/hosts//")
    assert found is not None
    assert found.mtime_s is None
