"""The memory of backups' command lines, and the snapshots for which it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from byteback.client.backup.selections import (
    Note,
    Selected,
    add,
    choose,
    find,
    look_up,
    note,
)
from byteback.client.restore.diff import Changed, uppermost

ALL, ETC = Selected(("/",), None), Selected(("/etc",), ("*.bak",))
DAY = "2026-01-{:02d}T00:00+0000"


def test_a_note_is_made_when_something_changes() -> None:
    notes = add([], ALL, None)
    assert notes == [Note(ALL, None)]
    notes = add(notes, ALL, DAY.format(1))
    assert notes == [Note(ALL, DAY.format(1))]
    assert add(notes, ALL, DAY.format(2)) == notes
    # Nothing became of the first try of /etc alone.
    twice = add(add(notes, ETC, None), ALL, None)
    assert twice == [*notes, Note(ALL, None)]


def test_a_snapshot_goes_by_the_note_before_it() -> None:
    notes = [Note(ALL, DAY.format(2)), Note(ETC, DAY.format(5)), Note(ALL, None)]
    assert find(notes, DAY.format(1)) is None
    assert find(notes, DAY.format(2)) == ALL
    assert find(notes, DAY.format(4)) == ALL
    assert find(notes, "2026-01-05T01:00+0100") == ETC
    assert find(notes, DAY.format(9)) == ETC
    assert find(notes, "current") == ALL
    assert find(notes, "saved-by-hand") is None
    assert find([], "current") is None


def test_notes_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "lib/selections"
    monkeypatch.chdir(tmp_path)
    odd = choose(["x/../caf\udce9", "/"], ["a\nb"])
    assert odd.sources == (f"{tmp_path}/caf\udce9", "/")
    note(odd, DAY.format(1), state)
    before = state.stat()
    note(odd, DAY.format(2), state)
    assert state.stat().st_ino == before.st_ino
    assert look_up(DAY.format(3), state) == odd
    state.write_bytes(state.read_bytes()[:-9])
    assert look_up(DAY.format(3), state) is None
    note(ALL, None, Path("/proc/version/selections"))


def test_what_is_in_a_new_directory_goes_without_saying() -> None:
    changes = [
        Changed("new", "/a", None),
        Changed("new", "/a/b", None),
        Changed("changed", "/a/c", None),
        Changed("new", "/a/d/e", None),
        Changed("new", "/ab", None),
        Changed("deleted", "/c", None),
    ]
    left = [changed.path for changed in uppermost(changes)]
    assert left == ["/a", "/a/c", "/ab", "/c"]
