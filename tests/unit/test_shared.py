"""Files of several names in current: what a transfer has changed becomes one name."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tracemalloc
from pathlib import Path

import pytest

from byteback.errors import BusyError
from byteback.server.store.layout import Store
from byteback.server.transfer import change_log as changes_module
from byteback.server.transfer import hard_links
from byteback.server.transfer.change_log import Changes
from byteback.server.transfer.recheck import INVALID_MTIME_NS
from byteback.system import fifo, files
from byteback.system.btrfs import subvolume

HOST = "host"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / ".byteback" / "hosts").mkdir(parents=True)
    (tmp_path / HOST / "current").mkdir(parents=True)
    return Store(tmp_path)


def make_names(store: Store, *names: str) -> list[Path]:
    """One file of all those names."""
    paths = [store.current(HOST) / name for name in names]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
    paths[0].write_text("content")
    for path in paths[1:]:
        path.hardlink_to(paths[0])
    return paths


def transfer(store: Store, *lines: str) -> Changes:
    """One whose rsync logs those lines."""
    with hard_links.heard(store, HOST) as changes:
        fifo = changes.fifo
        assert fifo is not None
        assert stat.S_ISFIFO(fifo.lstat().st_mode)
        for line in ("receiving file list", *lines):
            with fifo.open("wb") as file:
                file.write(b"2026/11/23 15:03:05 [3648] " + os.fsencode(line) + b"\n")
    assert not fifo.exists()
    return changes


def number(path: Path) -> int:
    return path.stat().st_ino


@pytest.mark.parametrize(
    "line", [">f.st......", ".f...p.....", ".f........x", "cf.st......", "<f..t......"]
)
def test_what_was_changed_keeps_one_name_that_is_doubted(
    store: Store, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hard_links, "MAX_NAMES", 4)
    alone = make_names(store, "alone")
    same = make_names(store, "s", "below/s")
    changed = make_names(store, "c", "below/c", "below/c2")
    changes = transfer(store, f"{line} alone", f"{line} below/c")
    assert changes.numbers == {number(changed[0])}
    assert hard_links.separate(store, HOST, changes) == 1
    left = [path for path in changed if path.exists()]
    assert len(left) == 1
    assert left[0].stat().st_mtime_ns == INVALID_MTIME_NS
    assert all(path.stat().st_mtime_ns != INVALID_MTIME_NS for path in [*same, *alone])


def test_where_they_are_few_all_are_made_one_name(store: Store) -> None:
    same = make_names(store, "s", "below/s", "below/s2")
    changed = make_names(store, "c", "below/c")
    changes = transfer(store, ">f.st...... c")
    assert hard_links.separate(store, HOST, changes) == 1
    for paths, is_doubted in (same, False), (changed, True):
        (left,) = [path for path in paths if path.exists()]
        assert (left.stat().st_mtime_ns == INVALID_MTIME_NS) is is_doubted
    (store.current(HOST) / "new").hardlink_to(left)
    left.with_name("other").hardlink_to(next(path for path in same if path.exists()))
    later = transfer(store, ".f...p..... new", ".f...p..... other")
    assert not later.numbers, "they were made links in that very transfer"


def test_a_first_transfer_ends_there_and_a_second_goes_on(store: Store) -> None:
    make_names(store, "a", "b")
    with hard_links.heard(store, HOST) as changes:
        assert not changes.is_second
        assert changes.may_go_on
        changes.numbers.add(1)
        assert not changes.may_go_on
    hard_links.separate(store, HOST, changes)
    with hard_links.heard(store, HOST) as changes:
        assert changes.is_second
        changes.numbers.add(1)
        assert changes.may_go_on
    with hard_links.heard(store, HOST) as changes:
        assert not changes.is_second


@pytest.mark.parametrize(
    "line",
    [
        ">f+++++++++ a",  # new, and the others are links to it by now
        "hf+++++++++ b",
        "hf.st...... b",  # a link was put in the place of what there was
        ".d..t...... ./",
        "cd+++++++++ a/",
        "*deleting   a",
        ">f.st...... gone",
        "sent 120 bytes  received 474 bytes  total size 24",
        ">f.st......",
    ],
)
def test_what_is_new_or_not_there_is_no_change(store: Store, line: str) -> None:
    make_names(store, "a", "b")
    changes = transfer(store, line)
    assert changes.is_heard
    assert not changes.numbers
    assert hard_links.separate(store, HOST, changes) == 0


def test_names_are_read_as_rsync_writes_them(store: Store) -> None:
    odd = make_names(store, "a\nb", "b")
    bytes_ = make_names(store, os.fsdecode(b"\xff"), "c")
    spaces = make_names(store, " x  y ", "d")
    lines = ("a\\#012b", "\\#377", " x  y ")
    changes = transfer(store, *(f".f...p..... {name}" for name in lines))
    assert changes.numbers == {number(paths[0]) for paths in (odd, bytes_, spaces)}


def test_nothing_is_looked_at_outside_the_tree(store: Store, tmp_path: Path) -> None:
    inside = make_names(store, "a", "b")
    (tmp_path / "outside").write_text("x")
    (tmp_path / "outside-too").hardlink_to(tmp_path / "outside")
    (store.current(HOST) / "link").symlink_to("../..")
    names = ("../../outside", "link/outside", "/", "..", f"{tmp_path}/outside", "./a")
    changes = transfer(store, *(f">f.st...... {name}" for name in names))
    assert changes.numbers == {number(inside[0])}


def test_what_was_separated_is_not_separated_at_once_again(store: Store) -> None:
    """The next transfer may link to it before it mends it."""
    paths = make_names(store, "a", "b")
    assert hard_links.separate(store, HOST, transfer(store, ">f.st...... a")) == 1
    kept, gone = sorted(paths, key=lambda path: not path.exists())
    gone.hardlink_to(kept)
    changes = transfer(store, f".f..t...... {kept.name}")
    assert hard_links.separate(store, HOST, changes) == 0
    assert gone.samefile(kept)
    assert transfer(store, f".f..t...... {kept.name}").numbers == {number(kept)}


def test_a_first_backup_logs_nothing(store: Store) -> None:
    with hard_links.heard(store, HOST) as changes:
        assert changes.fifo is None
    assert hard_links.separate(store, HOST, changes) == 0


def test_there_is_an_end_to_what_is_remembered(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in hard_links, changes_module:
        monkeypatch.setattr(module, "MAX_SHARED", 2)
    for name in "abcd":
        make_names(store, name, f"{name}-too")
    changes = transfer(store, *(f".f...p..... {name}" for name in "abcd"))
    assert len(changes.numbers) == 3
    with pytest.raises(OverflowError):
        hard_links.separate(store, HOST, changes)


def test_what_cannot_be_noted_is_not_taken_for_done(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    make_names(store, "a", "b")
    changes = transfer(store, ".f...p..... a")
    monkeypatch.setattr(files, "write_atomically", full)
    with pytest.raises(OSError, match="full"):
        hard_links.separate(store, HOST, changes)


def test_where_no_log_can_be_read_nothing_is_begun(store: Store) -> None:
    make_names(store, "a", "b")
    hosts = store.state / "hosts"
    hosts.rename(hosts.with_name("away"))
    with pytest.raises(BusyError, match="cannot follow"), hard_links.heard(store, HOST):
        pass


def test_who_holds_the_log_open_is_not_waited_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fifo, "END_S", 0.1)
    make_names(store, "a", "b")

    def leave_behind(stack: contextlib.ExitStack) -> None:
        with hard_links.heard(store, HOST) as changes:
            assert changes.fifo is not None
            stack.enter_context(changes.fifo.open("wb"))

    with contextlib.ExitStack() as stack, pytest.raises(BusyError, match="goes on"):
        leave_behind(stack)


def test_a_long_log_holds_nobody_up(store: Store) -> None:
    make_names(store, "a", "b")
    lines = [f">f+++++++++ {'x' * 200}{n}" for n in range(2000)]
    assert transfer(store, *lines, ">f.st...... a").numbers


def test_what_was_changed_last_keeps_its_name(store: Store) -> None:
    paths = make_names(store, *(f"{d}/{n}" for d in "abcdef" for n in "12"))
    changes = transfer(store, ">f.st...... f/2", ">f.st...... ./c/1", "hf+++++++++ x")
    assert hard_links.separate(store, HOST, changes) == 1
    assert [path for path in paths if path.exists()] == [store.current(HOST) / "c/1"]


def test_a_name_that_went_after_its_change_is_not_waited_for(store: Store) -> None:
    paths = make_names(store, "a", "b", "c")
    changes = transfer(store, ">f.st...... a")
    paths[0].unlink()
    assert hard_links.separate(store, HOST, changes) == 1
    assert sum(path.exists() for path in paths) == 1


def test_what_was_separated_in_another_tree_says_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A discard puts a copy of a snapshot there: the same numbers, with all names."""

    def be(uuid: bytes) -> None:
        monkeypatch.setattr(
            subvolume, "read", lambda _: subvolume.Subvolume(uuid, b"", 0, 0, 5, 0.0)
        )

    be(b"1")
    paths = make_names(store, "a", "b")
    hard_links.separate(store, HOST, transfer(store, ">f.st...... a"))
    paths[1].hardlink_to(paths[0])
    be(b"2")
    assert transfer(store, ">f.st...... a").numbers == {number(paths[0])}


def test_what_wrote_unheard_makes_the_note_void(store: Store) -> None:
    paths = make_names(store, "a", "b")
    hard_links.separate(store, HOST, transfer(store, ">f.st...... a"))
    hard_links.forget(store, HOST)
    paths[1].hardlink_to(paths[0])
    assert transfer(store, ">f.st...... a").numbers == {number(paths[0])}


def test_lines_that_rsync_cuts_hide_nothing(store: Store) -> None:
    """After 2047 bytes it writes the next line right behind."""
    long = "/".join(["d" * 200] * 12)
    paths = make_names(store, "s", "other", "other2", "plain", "plain2")
    for path in paths[1:3], paths[3:]:
        for one in path:
            one.unlink()
    other = make_names(store, "other", "other2")
    plain = make_names(store, "plain", "plain2")
    deep = store.current(HOST) / long
    deep.mkdir(parents=True)
    (deep / "f").hardlink_to(paths[0])
    stamp = "2026/11/23 15:51:06 [18098] "
    cut = f">f.st...... {long}/f"[:2047]
    lines = f"{cut}{stamp}" * 50 + ">f.st...... plain"
    changes = transfer(store, lines)
    assert changes.numbers == {number(plain[0])}
    hard_links.separate(store, HOST, changes)
    left = paths[0] if paths[0].exists() else deep / "f"
    assert left.stat().st_mtime_ns == INVALID_MTIME_NS
    assert left.stat().st_nlink == 1
    assert all(p.stat().st_mtime_ns != INVALID_MTIME_NS for p in other if p.exists())


def test_no_name_makes_the_reading_fail(store: Store) -> None:
    a = make_names(store, "a", "b")
    odd = ("\\#000", "x\\#000/a", "y" * 5000, "a/" * 3000, "..", "")
    changes = transfer(store, *(f">f.st...... {name}" for name in odd), ">f.st...... a")
    assert changes.numbers == {number(a[0])}


def test_names_take_no_memory(store: Store) -> None:
    """A client may have made millions of them in one directory."""
    names = [str(n) for n in range(3000)]
    make_names(store, *names)
    tracemalloc.start()
    try:
        assert sum(1 for _ in hard_links._names(store.current(HOST))) == len(names)
        assert tracemalloc.get_traced_memory()[1] < 300_000
    finally:
        tracemalloc.stop()
