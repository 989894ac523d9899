"""Taking a snapshot: what is recorded of it, whatever gets in the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from byteback.errors import (
    BytebackError,
    InterruptedBySignalError,
    PolicyError,
    ToolError,
)
from byteback.model.snapshot import format_snapshot_name
from byteback.server.accounting import ledger
from byteback.server.snapshots import take
from byteback.server.store.layout import Store
from byteback.server.store.settings import ServerSettings
from byteback.system.btrfs import commands

HOST = "a.example"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store(tmp_path)
    made.state.mkdir(mode=0o700)
    made.current(HOST).mkdir(parents=True)
    (made.current(HOST) / "file").touch()
    monkeypatch.setattr(commands, "is_subvolume", lambda _: True)
    return made


def recorded(store: Store) -> int:
    record = ledger.host_records(store, HOST).get(HOST)
    return 0 if record is None else len(record.snapshots)


@pytest.mark.parametrize(
    "error", [ToolError("no"), InterruptedBySignalError(15), MemoryError()]
)
def test_a_snapshot_that_was_not_made_is_not_recorded(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Each record divides what growth is judged by, as often as the client likes."""

    def fail(_current: Path, _target: Path) -> None:
        raise error

    monkeypatch.setattr(commands, "take_snapshot", fail)
    with pytest.raises((BytebackError, MemoryError)):
        take.take_snapshot(store, HOST, ServerSettings())
    assert recorded(store) == 0


def test_a_snapshot_that_was_made_stays_recorded(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal that comes behind it takes nothing back: it may lack files."""

    def make_and_fail(_current: Path, target: Path) -> None:
        target.mkdir()
        raise InterruptedBySignalError(15)

    monkeypatch.setattr(commands, "take_snapshot", make_and_fail)
    with pytest.raises(InterruptedBySignalError):
        take.take_snapshot(store, HOST, ServerSettings(), incomplete=True)
    assert recorded(store) == 1
    (name,) = set(store.trees(HOST)) - {"current"}
    assert ledger.incomplete_snapshots(store, HOST) == {name}


def test_a_tree_that_is_closed_by_its_mode_is_opened(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client could lock itself out for ever."""
    monkeypatch.setattr(commands, "take_snapshot", lambda _, target: target.mkdir())
    for go in (
        lambda: take.ensure_current(store, HOST),
        lambda: take.take_snapshot(store, HOST, ServerSettings()),
    ):
        store.current(HOST).chmod(0o050)
        go()
        assert store.current(HOST).stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        (0, "younger than a minute"),  # a name tells no less
        (0.5, "younger than 30 minutes"),
        (1, "younger than an hour"),
        (6, "younger than 6 hours"),
        (1.5, "younger than 1.5 hours"),
    ],
)
def test_too_often_says_how_often_it_may_be(
    store: Store, hours: float, words: str
) -> None:
    now = take.local_now()
    (store.host_directory(HOST) / format_snapshot_name(now)).mkdir()
    settings = ServerSettings(snapshot_interval_hours=hours)
    with pytest.raises(PolicyError, match=words):
        take.take_snapshot(store, HOST, settings, now=lambda: now)
