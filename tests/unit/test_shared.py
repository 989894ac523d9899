"""Files of several names in current: what a transfer has changed becomes one name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from byteback.server import shared
from byteback.server.doubt import DOUBTED_NS


def make_names(tree: Path, *names: str) -> list[Path]:
    """One file of all those names."""
    paths = [tree / name for name in names]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
    paths[0].write_text("content")
    for path in paths[1:]:
        path.hardlink_to(paths[0])
    return paths


def write(path: Path) -> None:
    path.write_text("other content")


def set_mode(path: Path) -> None:
    path.chmod(0o751)


def set_attribute(path: Path) -> None:
    os.setxattr(path, "user.rsync.%stat", b"100644 0,0 1:1")


@pytest.mark.parametrize("change", [write, set_mode, set_attribute])
def test_what_was_changed_keeps_one_name_that_is_doubted(
    tmp_path: Path, change: object
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    alone = make_names(tree, "alone")
    same = make_names(tree, "s", "below/s")
    changed = make_names(tree, "c", "below/c", "below/c2")
    before = shared.note(tree, 10)
    assert len(before) == 2
    assert callable(change)
    change(changed[1])
    change(alone[0])
    new = make_names(tree, "new", "below/new")
    assert shared.separate_changed(tree, before) == 1
    left = [path for path in changed if path.exists()]
    assert len(left) == 1
    assert left[0].stat().st_mtime_ns == DOUBTED_NS
    assert all(path.stat().st_mtime_ns != DOUBTED_NS for path in [*same, *new, *alone])


def test_names_that_come_and_go_are_no_change(tmp_path: Path) -> None:
    paths = make_names(tmp_path, "a", "b", "c")
    before = shared.note(tmp_path, 10)
    paths[0].unlink()
    (tmp_path / "d").hardlink_to(paths[1])
    assert shared.separate_changed(tmp_path, before) == 0


def test_no_more_is_looked_at_than_there_is_time_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        make_names(tmp_path, f"{number}", f"{number}-too")
    assert len(shared.note(tmp_path, -1)) == 1
    monkeypatch.setattr(shared, "MAX_SHARED", 2)
    assert len(shared.note(tmp_path, 10)) == 3
