"""The hooks that come with byteback: dumps that can be read back, and snapshots."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.conftest import CONFIGURATION, EnrolledClient
from tests.integration.hook_runs import DUMPS, HOOKS, run_hook
from tests.integration.programs import Outcome, run_program

NOBODY = 65534


@pytest.fixture(autouse=True)
def clean(installed: Path) -> Iterator[None]:
    """No dumps and no lists of databases, before and afterwards."""
    yield
    shutil.rmtree(DUMPS, ignore_errors=True)
    shutil.rmtree(CONFIGURATION, ignore_errors=True)


# --- SQLite ----------------------------------------------------------------------


@pytest.fixture
def database() -> Iterator[Path]:
    """A database of an ordinary user's, with a write-ahead log."""
    directory = Path("/srv/app data")
    directory.mkdir()
    path = directory / "a?b.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES ('kept')")
        connection.commit()
    for place in (directory, *directory.iterdir()):
        os.chown(place, NOBODY, NOBODY)
    CONFIGURATION.mkdir(exist_ok=True)
    (CONFIGURATION / "sqlite").write_text("# ours\n\n/srv/app*/*.db\n")
    yield path
    shutil.rmtree(directory)


def rows(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT x FROM t")]


def copy_of(database: Path) -> Path:
    [copy] = (DUMPS / "sqlite").iterdir()
    assert (
        copy.name == f"{str(database).replace('/', '%2F').replace('?', '%3F')}.sqlite"
    )
    return copy


def test_sqlite_is_copied_between_transactions(database: Path) -> None:
    with closing(sqlite3.connect(database)) as writer:
        writer.execute("INSERT INTO t VALUES ('not committed')")
        run_hook("sqlite")
        copy = copy_of(database)
        assert (copy.stat().st_mode & 0o777, copy.stat().st_uid) == (0o600, 0)
        assert rows(copy) == ["kept"]
        writer.commit()
    run_hook("sqlite")
    assert rows(copy) == ["kept", "not committed"]


def test_a_damaged_database_fails_and_the_old_copy_stays(database: Path) -> None:
    run_hook("sqlite")
    for path in database.parent.iterdir():
        path.unlink()
    database.write_text("no database" * 1000)
    failed = run_hook("sqlite", check=False)
    assert failed.status == 13
    assert "not a database" in failed.stderr
    assert rows(copy_of(database)) == ["kept"]


def test_sqlite_does_with_a_users_rights_what_the_user_could_lead_astray(
    database: Path,
) -> None:
    run_hook("sqlite")
    os.chown(database, 0, 0)
    database.chmod(0o600)
    failed = run_hook("sqlite", check=False)
    assert (failed.status, "unable to open" in failed.stderr) == (13, True)
    assert rows(copy_of(database)) == ["kept"]


@pytest.mark.parametrize("line", ["", "/no/such/file", "srv/x"])
def test_a_list_that_finds_nothing_stops_the_backup(database: Path, line: str) -> None:
    (CONFIGURATION / "sqlite").write_text(f"{line}\n")
    assert run_hook("sqlite", check=False).status == 10


# --- Snapshots of the source -----------------------------------------------------


@pytest.fixture
def subvolume(enrolled_client: EnrolledClient) -> Path:
    """A subvolume to back up, with the hook linked into both places for it."""
    path = enrolled_client.store / "data"
    run_program(["btrfs", "subvolume", "create", path])
    (path / "file").write_text("before")
    for directory in ("pre-backup.d", "finally-backup.d"):
        link = CONFIGURATION / directory / "10-snapshot"
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(HOOKS / "btrfs-snapshot")
    (CONFIGURATION / "btrfs-snapshots").write_text(f"# one\n{path}\n")
    return path


def back_up(client: EnrolledClient, source: Path, *, private: bool = True) -> Outcome:
    alone = ["unshare", "--mount", "--propagation", "slave"] if private else []
    program = client.bin / "byteback-backup"
    return run_program([*alone, program, "--source", source, "-x", "x"], check=False)


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def add_hook(script: str) -> None:
    """A hook that runs after the snapshot was taken."""
    hook = CONFIGURATION / "pre-backup.d" / "20-late"
    hook.write_text(f"#!/bin/sh\n{script}\n")
    hook.chmod(0o755)


def test_the_backup_sees_one_moment_under_the_same_path(
    enrolled_client: EnrolledClient, subvolume: Path
) -> None:
    add_hook(f"nsenter --mount=/proc/1/ns/mnt sh -c 'echo after >{subvolume}/file'")
    outcome = back_up(enrolled_client, subvolume)
    assert outcome.status == 0, outcome
    copy = enrolled_client.current / subvolume.relative_to("/") / "file"
    assert copy.read_text() == "before"
    assert (subvolume / "file").read_text() == "after\n"
    assert names_in(subvolume) == ["file"]


def test_the_snapshot_goes_whatever_happens(
    enrolled_client: EnrolledClient, subvolume: Path
) -> None:
    add_hook("exit 1")
    assert back_up(enrolled_client, subvolume).status == 13
    assert names_in(subvolume) == ["file"]
    # Killed, and no hook could run: the next backup clears up.
    add_hook("kill -KILL $PPID; sleep 1")
    assert back_up(enrolled_client, subvolume).status != 0
    assert ".byteback-snapshot" in names_in(subvolume)
    assert not [line for line in mount_points() if line.startswith(str(subvolume))]
    add_hook("exit 0")
    assert back_up(enrolled_client, subvolume).status == 0
    assert names_in(subvolume) == ["file"]


def mount_points() -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1] for line in lines]


def test_a_snapshot_that_everybody_would_see_is_refused(
    enrolled_client: EnrolledClient, subvolume: Path
) -> None:
    outcome = back_up(enrolled_client, subvolume, private=False)
    assert outcome.status == 13
    assert "unshare --mount byteback-backup" in outcome.stderr


def test_what_a_snapshot_would_leave_out_is_refused(
    enrolled_client: EnrolledClient, subvolume: Path
) -> None:
    run_program(["btrfs", "subvolume", "create", subvolume / "inner"])
    outcome = back_up(enrolled_client, subvolume)
    assert (outcome.status, "subvolumes in it" in outcome.stderr) == (13, True)
    assert names_in(subvolume) == ["file", "inner"]
    (CONFIGURATION / "btrfs-snapshots").write_text("/\n")
    assert "below /" in back_up(enrolled_client, subvolume).stderr
