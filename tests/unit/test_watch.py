"""The server's watch over a push, on a pretended disc."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from byteback.errors import BusyError, PolicyError
from byteback.model.free_space import FreeSpace
from byteback.model.growth import Taken
from byteback.server.accounting import growth, ledger, ledger_file
from byteback.server.store.layout import Store
from byteback.server.store.settings import ServerSettings
from byteback.server.transfer import space_guard
from byteback.system import host, process
from byteback.system.btrfs import commands

MIB = 2**20
TOTAL = 10_000 * MIB
LIMITS = ServerSettings()
DAY = 86400.0


class Disc:
    """A disc that the kernel shows less full than it is until it is synced."""

    def __init__(self) -> None:
        self.free = 3000 * MIB
        self.unflushed = 0
        self.syncs = 0
        self.started: list[str] = []

    def free_space(self, _path: Path) -> FreeSpace:
        return FreeSpace(self.free + self.unflushed, TOTAL)

    def statvfs(self, _path: Path) -> SimpleNamespace:
        free = self.free + self.unflushed
        return SimpleNamespace(f_bavail=free, f_blocks=TOTAL, f_frsize=1)

    def sync(self, _path: Path) -> None:
        self.unflushed = 0
        self.syncs += 1

    def start(self, argv: list[str], **_: object) -> None:
        self.started.append(os.fspath(argv[-1]))


@pytest.fixture
def disc(monkeypatch: pytest.MonkeyPatch) -> Disc:
    made = Disc()
    monkeypatch.setattr(commands, "free_space", made.free_space)
    monkeypatch.setattr(commands, "sync", made.sync)
    monkeypatch.setattr(process, "start", made.start)
    monkeypatch.setattr(host, "program_path", Path)
    faked = SimpleNamespace(**{**vars(os), "statvfs": made.statvfs})
    monkeypatch.setattr(space_guard, "os", faked)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path)
    made.state.mkdir()
    (tmp_path / "a" / "current").mkdir(parents=True)
    return made


@pytest.fixture
def begin(
    store: Store, disc: Disc, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], space_guard.Watch]:
    """Begin a push of host a, as the session does."""

    def begin_one() -> space_guard.Watch:
        number = ledger.begin_transfer(store, "a", "", "push")
        return space_guard.Watch(store, "a", LIMITS, number)

    return begin_one


def earlier_backups(
    store: Store, monkeypatch: pytest.MonkeyPatch, *megabytes: int
) -> None:
    """One backup a day until yesterday."""
    for back, size in zip(range(len(megabytes), 0, -1), megabytes, strict=True):
        with monkeypatch.context() as patch:
            then = time.time() - back * DAY
            patch.setattr(ledger, "time", SimpleNamespace(time=lambda t=then: t))
            number = ledger.begin_transfer(store, "a", "", "push")
            ledger.note_taken(store, number, Taken(size * MIB))
            patch.setattr(ledger, "time", SimpleNamespace(time=lambda t=then + 60: t))
            ledger.add_snapshot(store, "a", f"{back}", incomplete=False, files=None)


def test_a_larger_backup_may_take_what_room_there_is_and_no_more(
    store: Store,
    disc: Disc,
    begin: Callable[[], space_guard.Watch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    earlier_backups(store, monkeypatch, 100, 10)
    running = begin()
    disc.free = 700 * MIB
    running.look(2300 * MIB)
    (record,) = ledger.host_records(store).values()
    assert record.pushes[-1].taken == Taken(2300 * MIB)  # known before the shortage
    disc.free = 500 * MIB
    with pytest.raises(PolicyError, match="suddenly larger") as caught:
        running.look(2500 * MIB)
    assert "--approve a" in str(caught.value.hint)
    (record,) = ledger.host_records(store).values()
    assert record.pushes[-1].was_stopped
    assert disc.started == []


def test_a_usual_backup_has_room_made_for_it(
    store: Store,
    disc: Disc,
    begin: Callable[[], space_guard.Watch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    earlier_backups(store, monkeypatch, 100, 10)
    running = begin()
    disc.free = 500 * MIB
    running.look(200 * MIB)  # the rest of what went, others took
    running.look(200 * MIB)
    assert disc.started == ["--prune"]


def test_many_small_pushes_are_one_large_backup(
    store: Store,
    disc: Disc,
    begin: Callable[[], space_guard.Watch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    earlier_backups(store, monkeypatch, 100, 10)
    for _ in range(2):
        pushed = begin()
        disc.free -= 90 * MIB
        pushed.finish(90 * MIB)
    running = begin()
    disc.free = 500 * MIB
    with pytest.raises(PolicyError):
        running.look(90 * MIB)


def test_one_that_was_stopped_and_comes_again_gets_not_a_byte_in(
    store: Store,
    disc: Disc,
    begin: Callable[[], space_guard.Watch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    earlier_backups(store, monkeypatch, 100, 10)
    pushed = begin()
    disc.free = 500 * MIB
    pushed.finish(2500 * MIB)
    with pytest.raises(PolicyError):
        begin().look(0)


def test_what_the_cache_still_holds_is_written_before_it_matters(
    store: Store,
    disc: Disc,
    begin: Callable[[], space_guard.Watch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    earlier_backups(store, monkeypatch, 100, 10)
    running = begin()
    disc.free -= 1000 * MIB
    disc.unflushed = 1000 * MIB
    running.look(1000 * MIB)
    assert disc.syncs == 0
    disc.free, disc.unflushed = 400 * MIB, 2600 * MIB
    with pytest.raises(PolicyError):
        running.look(2600 * MIB)


def test_a_first_backup_may_take_all_the_room_but_the_last(
    store: Store, disc: Disc, begin: Callable[[], space_guard.Watch]
) -> None:
    running = begin()
    disc.free = 600 * MIB
    running.look(2400 * MIB)
    disc.free = 500 * MIB
    with pytest.raises(PolicyError, match="first backup of 'a'"):
        running.look(2500 * MIB)


def test_an_approval_while_it_runs_lets_it_go_on(
    store: Store,
    disc: Disc,
    begin: Callable[[], space_guard.Watch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    earlier_backups(store, monkeypatch, 100, 10)
    running = begin()
    assert ledger.approve(store, "a")
    disc.free = 500 * MIB
    running.look(2500 * MIB)
    running.look(2600 * MIB)
    assert disc.started == ["--prune"]


def test_an_old_host_of_which_nothing_is_known_waits_for_a_measure(
    store: Store, disc: Disc, begin: Callable[[], space_guard.Watch]
) -> None:
    """As on the day of an upgrade, which a hostile client may have waited for."""
    (store.root / "a" / "2020-01-01T00:00+0000").mkdir()
    running = begin()
    disc.free = 200 * MIB
    running.look(80 * MIB)  # less than one percent of the store: not worth a thought
    with pytest.raises(BusyError, match="not known yet"):
        running.look(2800 * MIB)
    assert disc.started == ["--prune"], "it is this run that measures"
    (record,) = ledger.host_records(store).values()
    assert not record.pushes[-1].was_stopped, "nobody has judged it"


def test_a_measure_that_comes_meanwhile_lets_it_go_on(
    store: Store, disc: Disc, begin: Callable[[], space_guard.Watch]
) -> None:
    (store.root / "a" / "2020-01-01T00:00+0000").mkdir()
    running = begin()
    ledger.note_baseline(store, "a", Taken(1500 * MIB))
    disc.free = 200 * MIB
    running.look(2800 * MIB)
    assert disc.started == ["--prune"], "now it may cost history"
    disc.free = -100 * MIB
    with pytest.raises(PolicyError, match="suddenly larger"):
        running.look(3100 * MIB)


def test_a_ledger_that_cannot_be_used_stops_no_usual_push(
    store: Store, disc: Disc, begin: Callable[[], space_guard.Watch]
) -> None:
    (store.root / "a" / "2020-01-01T00:00+0000").mkdir()
    store.state.rename(store.root / "gone")
    running = begin()
    disc.free -= 80 * MIB
    running.look(80 * MIB)
    disc.free = 200 * MIB
    with pytest.raises(BusyError):
        running.look(2800 * MIB)


def test_counts_are_bounded_by_what_was_written_and_by_what_went(
    store: Store, disc: Disc, begin: Callable[[], space_guard.Watch]
) -> None:
    for written, gone, taken in ((10, 500, 10), (500, 10, 10), (None, 20, 20)):
        running = begin()
        disc.free -= gone * MIB
        running.finish(written if written is None else written * MIB)
        (record,) = ledger.host_records(store).values()
        assert record.pushes[-1].taken == Taken(taken * MIB)


def test_what_pruning_gives_back_hides_nothing(
    store: Store, disc: Disc, begin: Callable[[], space_guard.Watch]
) -> None:
    """Neither what came back between two looks, nor what was written meanwhile."""
    disc.free = 700 * MIB
    running = begin()
    disc.free = 550 * MIB
    running.look(150 * MIB)
    (store.state / space_guard.PRUNING).touch()
    for look in range(1, 6):  # 200 are written at each, and 200 come back
        running.look((150 + 200 * look) * MIB)
    disc.free = 1000 * MIB
    running.look(1250 * MIB)
    (store.state / space_guard.PRUNING).unlink()
    running.finish(1250 * MIB)
    (record,) = ledger.host_records(store).values()
    assert record.pushes[-1].taken == Taken(1250 * MIB)


def test_what_comes_back_without_pruning_was_not_taken(
    store: Store, disc: Disc, begin: Callable[[], space_guard.Watch]
) -> None:
    """btrfs writes its trees anew, and gives the old ones back at each commit."""
    running = begin()
    for _ in range(5):
        for free in (2900, 3000):
            disc.free = free * MIB
            running.look(500 * MIB)
    disc.free = 2950 * MIB
    running.finish(500 * MIB)
    (record,) = ledger.host_records(store).values()
    assert record.pushes[-1].taken == Taken(50 * MIB)


# --- The ledger's bounds -----------------------------------------------------------


def test_a_flood_of_small_pushes_hides_no_large_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "KEPT_ROWS", 50)
    monkeypatch.setattr(ledger, "KEPT_RECENT", 10)
    number = ledger.begin_transfer(store, "a", "", "push")
    ledger.note_taken(store, number, Taken(1000))
    other = ledger.begin_transfer(store, "b", "", "push")
    ledger.note_taken(store, other, Taken(1))
    for _ in range(200):
        ledger.begin_transfer(store, "a", "", "push")
    records = ledger.host_records(store)
    assert 40 <= len(records["a"].pushes) <= 50 + ledger.TRIM_EVERY
    assert records["a"].pushes[0].taken == Taken(1000)
    assert records["b"].pushes[0].taken == Taken(1)


def test_a_flood_of_small_pushes_is_one_large_backup(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it comes and whatever else it does, all that it took is known."""
    monkeypatch.setattr(ledger, "KEPT_ROWS", 50)
    monkeypatch.setattr(ledger, "KEPT_RECENT", 10)
    clock = SimpleNamespace(now=time.time() - DAY)
    monkeypatch.setattr(ledger, "time", SimpleNamespace(time=lambda: clock.now))

    def send(count: int, kind: str, taken: int) -> None:
        for _ in range(count):
            clock.now += 1
            number = ledger.begin_transfer(store, "a", "", kind)
            if taken:
                ledger.note_taken(store, number, Taken(taken, 1), stopped=taken == 77)

    send(60, "push", 100)
    clock.now += 1
    ledger.add_snapshot(store, "a", "one", incomplete=False, files=None)
    send(1, "push", 77)
    send(199, "push", 10)
    number = ledger.begin_transfer(store, "a", "", "push")
    send(100, "pull", 0)  # restores, while that push goes on
    ledger.note_taken(store, number, Taken(5))
    record = ledger.host_records(store)["a"]
    assert len(record.pushes) + 10 <= 50 + ledger.TRIM_EVERY
    first, second = growth.group_backups(record)
    assert (first.taken, first.was_stopped) == (Taken(6000, 60), False)
    assert (second.taken, second.was_stopped) == (Taken(77 + 1990 + 5, 200), True)


def test_a_busy_ledger_keeps_no_push_out(
    store: Store, disc: Disc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client's restores are written there too, and a slow disc makes them wait."""
    monkeypatch.setattr(ledger_file, "SHORT_WAIT_S", 0.1)
    earlier_backups(store, monkeypatch, 100, 10)
    with busy(store, ends_by_itself=False):
        assert ledger.begin_transfer(store, "a", "", "pull") is None
        assert ledger.incomplete_snapshots(store, "a") == frozenset()
    with busy(store):
        number = ledger.begin_transfer(store, "a", "", "push")
    with busy(store):
        running = space_guard.Watch(store, "a", LIMITS, number)
    disc.free = 500 * MIB
    with busy(store), pytest.raises(PolicyError):
        running.look(2500 * MIB)
    with busy(store):
        running.finish(2500 * MIB)
    with busy(store):
        last = ledger.host_records(store)["a"].pushes[-1]
    assert (last.taken, last.was_stopped) == (Taken(2500 * MIB), True)


@contextlib.contextmanager
def busy(store: Store, *, ends_by_itself: bool = True) -> Iterator[None]:
    """Keep all others from the ledger for half a second, or until the block ends."""
    place = ledger_file.path(store)
    with contextlib.closing(sqlite3.connect(place, check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        timer = threading.Timer(0.5, other.rollback)
        if ends_by_itself:
            timer.start()
        try:
            yield
        finally:
            if ends_by_itself:
                timer.join()
            else:
                other.rollback()


def test_a_clock_that_ran_ahead_is_forgotten(
    store: Store,
    disc: Disc,
    begin: Callable[[], space_guard.Watch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    earlier_backups(store, monkeypatch, 100, 10)
    with monkeypatch.context() as patch:
        ahead = time.time() + 400 * DAY
        patch.setattr(ledger, "time", SimpleNamespace(time=lambda: ahead))
        ledger.begin_transfer(store, "a", "", "push")
        ledger.add_snapshot(store, "a", "ahead", incomplete=False, files=None)
        assert ledger.approve(store, "a")
    earlier_backups(store, monkeypatch, 100, 10)
    running = begin()
    disc.free = 500 * MIB
    with pytest.raises(PolicyError):
        running.look(2500 * MIB)


def test_damaged_ledgers_do_not_pile_up(store: Store) -> None:
    for _ in range(3):
        ledger_file.path(store).write_bytes(b"rubbish " * 1000)
        assert ledger.begin_transfer(store, "a", "", "push") is None
        assert ledger.begin_transfer(store, "a", "", "push") is not None
    assert sorted(p.name for p in store.state.iterdir()) == [
        "ledger.damaged",
        "ledger.sqlite",
    ]


def test_the_old_tools_state_is_not_looked_at(store: Store) -> None:
    (store.root / ".disk_free_history").write_bytes(b"\x04\x08garbage")
    (store.root / ".byteback.pruning").touch()
    assert ledger.host_records(store) == {}
    assert store.hosts() == ["a"]
