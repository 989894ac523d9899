"""The server's memory of a transfer, and its use after a crash."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from byteback.errors import BusyError
from byteback.model.listing import rank_trees
from byteback.server.accounting import ledger, ledger_file
from byteback.server.snapshots import take
from byteback.server.store import state as host_state
from byteback.server.store.layout import Store
from byteback.server.store.state import Transfer
from byteback.server.transfer import recheck

HOST = "client.example"
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / ".byteback/hosts").mkdir(parents=True)
    (tmp_path / HOST / "current").mkdir(parents=True)
    return Store(tmp_path)


def state_file(store: Store) -> Path:
    return store.lock_path(HOST).with_suffix(".state")


@pytest.mark.parametrize("state", list(Transfer))
def test_a_state_is_read_back(store: Store, state: Transfer) -> None:
    host_state.write(store, HOST, Transfer.RUNNING)
    host_state.write(store, HOST, state)
    assert host_state.read(store, HOST) is state
    assert state_file(store).stat().st_size == host_state.RECORD_LENGTH


def test_only_a_whole_transfer_has_a_mark(store: Store) -> None:
    mark = tuple("x" * 32 for _ in range(4))
    host_state.write(store, HOST, Transfer.WHOLE, mark)
    assert host_state.mark(store, HOST) == mark
    assert host_state.read(store, HOST) is Transfer.WHOLE
    for state in (Transfer.RUNNING, Transfer.PARTIAL, Transfer.FAILED):
        host_state.write(store, HOST, state, mark)
        assert not host_state.mark(store, HOST)
    host_state.write(store, HOST, Transfer.WHOLE)
    assert not host_state.mark(store, HOST)


def test_no_state_is_unknown_and_a_damaged_one_is_a_failure(store: Store) -> None:
    assert host_state.read(store, HOST) is Transfer.UNKNOWN
    for damaged in (b"", b"\0" * 64, b"who", b"\xff\xfe"):
        state_file(store).write_bytes(damaged)
        assert host_state.read(store, HOST).is_cut_off


def test_a_state_that_cannot_be_written_is_worth_another_attempt(store: Store) -> None:
    state_file(store).mkdir()
    with pytest.raises(BusyError):
        host_state.write(store, HOST, Transfer.RUNNING)


def test_only_a_transfer_of_an_earlier_start_was_cut_off_by_a_crash(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host_state.write(store, HOST, Transfer.RUNNING)
    assert host_state.crash_time(store, HOST) is None
    monkeypatch.setattr(host_state, "BOOT_ID", tmp_path / "boot_id")
    (tmp_path / "boot_id").write_text("11111111-2222-3333-4444-555555555555\n")
    began = host_state.crash_time(store, HOST)
    assert began is not None
    assert abs(began - time.time()) < 60
    host_state.write(store, HOST, Transfer.FAILED)
    (tmp_path / "boot_id").write_text("99999999-2222-3333-4444-555555555555\n")
    assert host_state.crash_time(store, HOST) is None


def test_what_was_lost_is_remembered_from_when_the_transfer_began(
    store: Store,
) -> None:
    host_state.write(store, HOST, Transfer.RUNNING)
    os.utime(state_file(store), (1_700_000_000, 1_700_000_000))
    for _ in range(2):
        host_state.note_lost(store, HOST)
        assert host_state.crash_time(store, HOST) == 1_700_000_000
        assert host_state.read(store, HOST) is Transfer.RUNNING
    host_state.write(store, HOST, Transfer.WHOLE)
    host_state.note_lost(store, HOST)
    assert host_state.read(store, HOST) is Transfer.WHOLE
    assert host_state.crash_time(store, HOST) is None


def test_a_store_that_was_mounted_anew_may_have_lost_a_transfer(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "boot_id").write_text("boot\n")
    monkeypatch.setattr(host_state, "BOOT_ID", tmp_path / "boot_id")
    for before, now, is_lost in (
        ("boot/1", "boot/1", False),
        ("boot/1", "boot/2", True),
        ("boot", "boot/2", False),  # not known: of an older version
        ("boot/1", "boot", False),
        ("other/1", "boot/1", True),
    ):
        monkeypatch.setattr(host_state, "_start", lambda _, word=before: word)
        host_state.write(store, HOST, Transfer.RUNNING)
        monkeypatch.setattr(host_state, "_start", lambda _, word=now: word)
        assert (host_state.crash_time(store, HOST) is not None) == is_lost


def test_files_that_a_crash_may_have_lost_are_compared_again(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_text("x")
    (tmp_path / "link").symlink_to("/etc/hostname")
    before = Path("/etc/hostname").stat().st_mtime_ns
    assert recheck.doubt_recent(tmp_path, time.time() + 5) == 0
    assert recheck.doubt_recent(tmp_path, time.time() - 5) == 1
    assert (tmp_path / "a/b/file").stat().st_mtime_ns == recheck.INVALID_MTIME_NS
    assert Path("/etc/hostname").stat().st_mtime_ns == before


def test_a_tree_too_deep_to_go_through_stops_nothing(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    recheck.doubt_recent(tmp_path, 0)
    # Python's own rmtree, pytest's too, cannot go that deep.
    subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


def days(number: int) -> str:
    return (NOW + timedelta(days=number)).strftime("%Y-%m-%dT%H:%M+0000")


def test_what_a_wrong_clock_dated_ahead_is_never_the_newest(store: Store) -> None:
    for number in (-2, -1, 365):
        (store.host_directory(HOST) / days(number)).mkdir()
    assert take.newest_name(store, HOST, now=lambda: NOW) == days(-1)
    # While the clock was wrong, and after a year, it is what its name says.
    later = NOW + timedelta(days=365)
    assert take.newest_name(store, HOST, now=lambda: later) == days(365)
    # The clock is a year behind: all that is there seems to be of the future.
    earlier = NOW - timedelta(days=365)
    assert take.newest_name(store, HOST, now=lambda: earlier) == days(365)


def test_a_restore_prefers_no_snapshot_of_the_future() -> None:
    names = [days(-2), "current", days(365), days(-1)]
    assert rank_trees(names, current_is_whole=False, now=NOW) == [
        *(days(-1), "current", days(-2), days(365))
    ]
    assert rank_trees(names, current_is_whole=True, now=NOW) == [
        *("current", days(-1), days(-2), days(365))
    ]


@pytest.mark.parametrize("content", [b"\0" * 100, b"no database at all" * 100])
def test_a_damaged_ledger_stops_nothing(store: Store, content: bytes) -> None:
    ledger_file.path(store).write_bytes(content)
    assert ledger.begin_transfer(store, HOST, "::1", "push") is None
    number = ledger.begin_transfer(store, HOST, "::1", "push")
    assert number is not None, "the damaged one was not set aside"
    ledger.end_transfer(store, number, ledger.TransferEnd("whole", 0, 1, 1))


def test_a_ledger_that_cannot_be_there_stops_nothing(store: Store) -> None:
    ledger_file.path(store).mkdir()
    assert ledger.begin_transfer(store, HOST, "::1", "push") is None
    ledger.add_snapshot(store, HOST, "x", incomplete=True, files=None)
    assert ledger.incomplete_snapshots(store, HOST) == frozenset()


# What byteback 1.0.0 began with, but for the tables that have not changed.
FIRST_SCHEMA = """
CREATE TABLE transfer (id INTEGER PRIMARY KEY, host TEXT NOT NULL,
    address TEXT NOT NULL,
    kind TEXT NOT NULL, started REAL NOT NULL, ended REAL, result TEXT,
    exit_status INTEGER, bytes_received INTEGER, bytes_written INTEGER,
    data_taken INTEGER, metadata_taken INTEGER, names INTEGER,
    stopped INTEGER NOT NULL DEFAULT 0);
CREATE TABLE snapshot (id INTEGER PRIMARY KEY, host TEXT NOT NULL, name TEXT NOT NULL,
    made REAL NOT NULL, incomplete INTEGER NOT NULL, files INTEGER);
INSERT INTO snapshot (host, name, made, incomplete) VALUES ('web', 'x', 1.0, 1);
"""


def columns(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        tables = ("snapshot", "transfer")
        asked = [connection.execute(f"PRAGMA table_info({table})") for table in tables]
        return {str(row[1]) for rows in asked for row in rows}


def test_an_older_ledger_gains_what_is_new_and_keeps_what_it_has(store: Store) -> None:
    place = ledger_file.path(store)
    with closing(sqlite3.connect(place)) as old:
        old.executescript(FIRST_SCHEMA)
    assert ledger.incomplete_snapshots(store, "web") == {"x"}
    assert {column for _, column, _ in ledger_file.ADDED_COLUMNS} <= columns(place)


def test_an_older_ledger_that_cannot_be_changed_can_still_be_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_file, "SHORT_WAIT_S", 0.1)
    place = ledger_file.path(store)
    with closing(sqlite3.connect(place)) as old:
        old.executescript(FIRST_SCHEMA)
        old.execute("BEGIN IMMEDIATE")
        assert ledger.incomplete_snapshots(store, "web") == {"x"}


def test_a_later_ledger_is_used_as_it_is(store: Store) -> None:
    number = ledger.begin_transfer(store, HOST, "::1", "push")
    place = ledger_file.path(store)
    with closing(sqlite3.connect(place)) as later:
        later.execute("ALTER TABLE snapshot ADD COLUMN colour TEXT")
        later.execute(f"PRAGMA user_version = {ledger_file.VERSION + 1}")
        later.commit()
    assert number is not None
    ledger.add_snapshot(store, HOST, "x", incomplete=True, files=None)
    assert ledger.incomplete_snapshots(store, HOST) == {"x"}
    with closing(sqlite3.connect(place)) as later:
        (version,) = later.execute("PRAGMA user_version").fetchone()
    assert version == ledger_file.VERSION + 1
