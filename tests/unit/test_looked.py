"""A client's directory that has not changed is not looked at again (D57)."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from byteback.server.prune import looked
from byteback.server.prune.looked import KEPT_S, YOUNG_S, Looked
from byteback.server.store import settings, state
from byteback.server.store.layout import Store
from byteback.server.store.settings import ServerSettings
from byteback.server.store.state import Transfer

A, B = "a.example", "b.example"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of two clients, and a place for root's memory of it."""
    monkeypatch.setattr(looked, "PATH", tmp_path / "var" / "looked")
    monkeypatch.setattr(settings, "load", ServerSettings)
    made = Store(tmp_path / "store")
    for client in (A, B):
        (made.root / client / "current").mkdir(parents=True)
        (made.root / client / "2026-11-22T20:15+0000").mkdir()
    (made.state / "hosts").mkdir(parents=True)
    return made


def later(seconds: float = 0.0) -> float:
    """A time at which what was done just now is no longer young."""
    return time.time() + YOUNG_S + 1 + seconds


def look(store: Store, seconds: float = 0.0) -> list[str]:
    """The clients that a run looks at, which then remembers them."""
    found = Looked(store, later(seconds))
    found.keep()
    return found.changed


def test_what_has_not_changed_is_not_looked_at_again(store: Store) -> None:
    assert look(store) == [A, B]
    assert look(store) == []


def test_clients_that_come_and_go_are_seen(store: Store) -> None:
    """What is left of a client that is gone is to be cleared away."""
    look(store)
    assert Looked(store, later()).is_as_known
    (store.root / "c.example" / "current").mkdir(parents=True)
    assert not Looked(store, later()).is_as_known
    assert look(store) == ["c.example"]
    assert Looked(store, later()).is_as_known
    for path in (store.root / "c.example" / "current", store.root / "c.example"):
        path.rmdir()
    gone = Looked(store, later())
    assert gone.changed == []
    assert not gone.is_as_known


def test_every_change_of_names_is_seen(store: Store) -> None:
    look(store)
    (store.root / A / "2026-11-23T20:15+0000").mkdir()
    assert look(store) == [A]
    (store.root / B / "2026-11-22T20:15+0000").rename(store.root / B / "1999-01-01T00")
    assert look(store) == [B]
    (store.root / A / "2026-11-23T20:15+0000").rmdir()
    assert look(store) == [A]
    assert look(store) == []


def test_times_that_were_set_hide_nothing(store: Store) -> None:
    """Programs set all times of a file but its ctime."""
    before = (store.root / A).stat()
    look(store)
    (store.root / A / "saved").mkdir()
    os.utime(store.root / A, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert look(store) == [A]


def test_another_directory_in_its_place_is_seen(store: Store) -> None:
    look(store)
    (store.root / A).rename(store.root / "old")
    (store.root / B).rename(store.root / A)
    assert look(store) == [A, "old"]


def test_the_end_of_a_transfer_is_seen(store: Store) -> None:
    look(store)
    state.write(store, B, Transfer.RUNNING)
    assert look(store) == [B]
    state.write(store, B, Transfer.WHOLE)
    assert look(store) == [B]


def test_what_changed_a_moment_ago_is_looked_at_again(store: Store) -> None:
    """It may change once more within one tick of the clock."""
    for _ in range(2):
        found = Looked(store, time.time() + YOUNG_S - 60)
        found.keep()
        assert found.changed == [A, B]
    assert look(store) == [A, B]


@pytest.mark.parametrize("seconds", [KEPT_S, -2 * YOUNG_S])
def test_a_memory_ends(store: Store, seconds: float) -> None:
    """After an hour, and also where the clock went back."""
    look(store)
    assert Looked(store, later(seconds)).changed == [A, B]


def test_the_hour_begins_with_the_first_look(store: Store) -> None:
    look(store)
    (store.root / A / "saved").mkdir()
    look(store, KEPT_S / 2)
    assert look(store, KEPT_S - 1) == []
    assert look(store, KEPT_S + 1) == [A, B]
    assert look(store, KEPT_S + 2) == []


def test_what_is_doubted_is_looked_at_again(store: Store) -> None:
    found = Looked(store, later())
    found.doubt(A)
    found.keep()
    assert look(store) == [A]


def test_a_look_afresh_leaves_no_memory_behind(store: Store) -> None:
    """A run that deletes may be killed at any moment."""
    look(store)
    assert Looked(store, later(), afresh=True).changed == [A, B]
    assert look(store) == [A, B]


def test_other_settings_are_another_memory(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was in order is to be sealed now."""
    look(store)
    monkeypatch.setattr(settings, "load", lambda: ServerSettings(sealed=True))
    assert look(store) == [A, B]


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"a\nb\n", b"x y z\n" * 100])
def test_a_damaged_memory_is_none(store: Store, tmp_path: Path, text: bytes) -> None:
    place = looked.PATH if os.geteuid() == 0 else store.state / looked.PATH.name
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(text)
    assert look(store) == [A, B]


def test_an_idle_run_writes_no_memory(store: Store) -> None:
    look(store)
    place = looked.PATH if os.geteuid() == 0 else store.state / looked.PATH.name
    before = place.stat()
    assert look(store, 60) == []
    assert place.stat().st_ino == before.st_ino
