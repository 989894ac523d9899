"""Files of several names in current: what a transfer has changed becomes one name."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from byteback.errors import BusyError
from byteback.server import shared
from byteback.server.doubt import DOUBTED_NS
from byteback.server.store import Store
from byteback.tools import files

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


def transfer(store: Store, *lines: str) -> shared.Changes:
    """One whose rsync logs those lines."""
    with shared.heard(store, HOST) as changes:
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
    monkeypatch.setattr(shared, "MAX_NAMES", 4)
    alone = make_names(store, "alone")
    same = make_names(store, "s", "below/s")
    changed = make_names(store, "c", "below/c", "below/c2")
    changes = transfer(store, f"{line} alone", f"{line} below/c")
    assert changes.numbers == {number(changed[0])}
    assert shared.separate(store, HOST, changes) == 1
    left = [path for path in changed if path.exists()]
    assert len(left) == 1
    assert left[0].stat().st_mtime_ns == DOUBTED_NS
    assert all(path.stat().st_mtime_ns != DOUBTED_NS for path in [*same, *alone])


def test_where_they_are_few_all_are_made_one_name(store: Store) -> None:
    same = make_names(store, "s", "below/s", "below/s2")
    changed = make_names(store, "c", "below/c")
    changes = transfer(store, ">f.st...... c")
    assert shared.separate(store, HOST, changes) == 1
    for paths, is_doubted in (same, False), (changed, True):
        (left,) = [path for path in paths if path.exists()]
        assert (left.stat().st_mtime_ns == DOUBTED_NS) is is_doubted
    (store.current(HOST) / "new").hardlink_to(left)
    left.with_name("other").hardlink_to(next(path for path in same if path.exists()))
    later = transfer(store, ".f...p..... new", ".f...p..... other")
    assert not later.numbers, "they were made links in that very transfer"


def test_a_first_transfer_ends_there_and_a_second_goes_on(store: Store) -> None:
    make_names(store, "a", "b")
    with shared.heard(store, HOST) as changes:
        assert changes.options == ()
        changes.look()
        changes.numbers.add(1)
        changes.look()
        pytest.fail("it went on")
    shared.separate(store, HOST, changes)
    with shared.heard(store, HOST) as changes:
        assert changes.options == shared.CAREFUL
        changes.numbers.add(1)
        changes.look()
    with shared.heard(store, HOST) as changes:
        assert changes.options == ()


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
    assert shared.separate(store, HOST, changes) == 0


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
    assert shared.separate(store, HOST, transfer(store, ">f.st...... a")) == 1
    kept, gone = sorted(paths, key=lambda path: not path.exists())
    gone.hardlink_to(kept)
    changes = transfer(store, f".f..t...... {kept.name}")
    assert shared.separate(store, HOST, changes) == 0
    assert gone.samefile(kept)
    assert transfer(store, f".f..t...... {kept.name}").numbers == {number(kept)}


def test_a_first_backup_logs_nothing(store: Store) -> None:
    with shared.heard(store, HOST) as changes:
        assert changes.fifo is None
    assert shared.separate(store, HOST, changes) == 0


def test_there_is_an_end_to_what_is_remembered(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "MAX_SHARED", 2)
    for name in "abcd":
        make_names(store, name, f"{name}-too")
    changes = transfer(store, *(f".f...p..... {name}" for name in "abcd"))
    assert len(changes.numbers) == 3
    with pytest.raises(OverflowError):
        shared.separate(store, HOST, changes)


def test_what_cannot_be_noted_is_not_taken_for_done(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    make_names(store, "a", "b")
    changes = transfer(store, ".f...p..... a")
    monkeypatch.setattr(files, "write_atomically", full)
    with pytest.raises(OSError, match="full"):
        shared.separate(store, HOST, changes)


def test_where_no_log_can_be_read_nothing_is_begun(store: Store) -> None:
    make_names(store, "a", "b")
    hosts = store.state / "hosts"
    hosts.rename(hosts.with_name("away"))
    with pytest.raises(BusyError, match="cannot follow"), shared.heard(store, HOST):
        pass


def test_a_long_log_holds_nobody_up(store: Store) -> None:
    make_names(store, "a", "b")
    lines = [f">f+++++++++ {'x' * 200}{n}" for n in range(2000)]
    assert transfer(store, *lines, ">f.st...... a").numbers
