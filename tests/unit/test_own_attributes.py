"""Files with attributes of rsync's own are found, as far as they are backed up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from byteback.client.backup.own_attributes import OwnAttributes, has_own
from byteback.client.backup.rules import Selection
from byteback.model.rsync_filter import bounds
from tests.integration.programs import require_program

NAMES = ("user.rsync.%stat", "user.rsync.%aacl", "user.rsync.security.capability")


def make(path: Path, name: str | None = None) -> str:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.touch()
    if name is not None:
        try:
            os.setxattr(path, name, b"x")
        except OSError:
            pytest.skip("this file system keeps no attributes of users")
    return str(path)


@pytest.fixture
def own(tmp_path: Path) -> OwnAttributes:
    (tmp_path / "state").touch()
    return OwnAttributes(state=tmp_path / "state")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_sent_is_looked_at(
    own: OwnAttributes, tmp_path: Path, name: str
) -> None:
    path = make(tmp_path / "a\n", name)
    other = make(tmp_path / "other", "user.other")
    for _ in range(2):  # rsync prints it again in a second attempt
        for shown in (path, path[1:]):
            own.take(f"5 <f+++++++++ {shown}".replace("\n", "\\#012"))
    own.take(f"5 <f+++++++++ {other[1:]}")
    own.take(f"5 *deleting   {path[1:]}")
    own.take("5 <f+++++++++ no/such/file")
    assert own.paths == (path,)
    assert has_own(path)
    assert not has_own(other)


def test_a_directory_has_attributes_as_well(own: OwnAttributes, tmp_path: Path) -> None:
    make(tmp_path / "below/file")
    os.setxattr(tmp_path / "below", NAMES[0], b"x")
    own.take(f"5 .d..t...... {tmp_path}/below/")
    assert own.paths == (f"{tmp_path}/below",)


def test_where_all_were_looked_at_nothing_is_looked_for(
    own: OwnAttributes, tmp_path: Path
) -> None:
    make(tmp_path / "file", NAMES[0])
    own.look_at_all(Selection((str(tmp_path),)))
    assert own.paths == ()


def test_a_first_look_leaves_out_what_the_backup_does(tmp_path: Path) -> None:
    require_program("rsync")
    kept = [make(tmp_path / "kept/a", NAMES[0]), make(tmp_path / "kept/b\n", NAMES[1])]
    make(tmp_path / "store/file", NAMES[0])
    make(tmp_path / "plain")
    own = OwnAttributes(state=tmp_path / "state")
    # Only this directory: else rsync would go through the whole machine.
    source = str(tmp_path)
    rules = (f"--exclude={tmp_path}/store/",)
    own.look_at_all(Selection((source,), tuple(bounds([source])), rules))
    assert sorted(own.paths) == kept


def test_what_may_not_answer_is_not_looked_at(tmp_path: Path) -> None:
    make(tmp_path / "far/file", NAMES[0])
    os.setxattr(tmp_path / "far", NAMES[0], b"x")
    own = OwnAttributes({f"{tmp_path}/far"}, tmp_path / "state")
    own.take(f"5 cd+++++++++ {tmp_path}/far/")
    own.look_at_all(Selection((str(tmp_path),)))
    assert own.paths == ()


def test_a_backup_that_fails_has_the_next_one_look_again(tmp_path: Path) -> None:
    state = tmp_path / "below/state"
    own = OwnAttributes(state=state)
    own.begin()
    own.end()
    assert state.exists()
    OwnAttributes(state=state).begin()
    assert not state.exists()
