"""The hooks that come with byteback: dumps that can be read back, and snapshots."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.conftest import LIBRARY, EnrolledClient
from tests.integration.programs import SEARCH_PATH, Outcome, run_program

DUMPS = Path("/var/backups/byteback")
CONFIGURATION = Path("/etc/byteback")
NOBODY = 65534


@pytest.fixture
def hooks(installed: Path) -> Iterator[Path]:
    """Where the hooks are, on a machine with no dumps and no lists for them."""
    yield LIBRARY / "hooks"
    shutil.rmtree(DUMPS, ignore_errors=True)
    shutil.rmtree(CONFIGURATION, ignore_errors=True)


def run_hook(hook: Path, *, check: bool = True) -> Outcome:
    """Run a hook as a backup does: by a link, with little in its environment."""
    link = CONFIGURATION / "pre-backup.d" / hook.name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(hook)
    return run_program(["env", "-i", f"PATH={SEARCH_PATH}", link], check=check)


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


def test_sqlite_is_copied_between_transactions(hooks: Path, database: Path) -> None:
    with closing(sqlite3.connect(database)) as writer:
        writer.execute("INSERT INTO t VALUES ('not committed')")
        run_hook(hooks / "sqlite")
        copy = copy_of(database)
        assert (copy.stat().st_mode & 0o777, copy.stat().st_uid) == (0o600, 0)
        assert rows(copy) == ["kept"]
        writer.commit()
    run_hook(hooks / "sqlite")
    assert rows(copy) == ["kept", "not committed"]


def test_a_damaged_database_fails_and_the_old_copy_stays(
    hooks: Path, database: Path
) -> None:
    run_hook(hooks / "sqlite")
    for path in database.parent.iterdir():
        path.unlink()
    database.write_text("no database" * 1000)
    failed = run_hook(hooks / "sqlite", check=False)
    assert failed.status == 13
    assert "not a database" in failed.stderr
    assert rows(copy_of(database)) == ["kept"]


def test_sqlite_does_with_a_users_rights_what_the_user_could_lead_astray(
    hooks: Path, database: Path
) -> None:
    run_hook(hooks / "sqlite")
    os.chown(database, 0, 0)
    database.chmod(0o600)
    failed = run_hook(hooks / "sqlite", check=False)
    assert (failed.status, "unable to open" in failed.stderr) == (13, True)
    assert rows(copy_of(database)) == ["kept"]


@pytest.mark.parametrize("line", ["", "/no/such/file", "srv/x"])
def test_a_list_that_finds_nothing_stops_the_backup(
    hooks: Path, database: Path, line: str
) -> None:
    (CONFIGURATION / "sqlite").write_text(f"{line}\n")
    assert run_hook(hooks / "sqlite", check=False).status == 10


# --- Snapshots of the source -----------------------------------------------------


@pytest.fixture
def subvolume(enrolled_client: EnrolledClient, hooks: Path) -> Path:
    """A subvolume to back up, with the hook linked into both places for it."""
    path = enrolled_client.store / "data"
    run_program(["btrfs", "subvolume", "create", path])
    (path / "file").write_text("before")
    for directory in ("pre-backup.d", "finally-backup.d"):
        link = CONFIGURATION / directory / "10-snapshot"
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(hooks / "btrfs-snapshot")
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


# --- Database servers ------------------------------------------------------------


@pytest.fixture
def database_servers() -> None:
    """Their packages are large, so that they are asked for: tests/run --databases."""
    if os.environ.get("BYTEBACK_TEST_DATABASES") != "1":
        pytest.skip("needs PostgreSQL and MariaDB: run tests/run --databases")


HOSTILE = ["plain", "with space", "../../../tmp/x", "dbname=postgres", "it's \\ %2F"]


@pytest.fixture
def postgresql(database_servers: None) -> Iterator[str]:
    """A fresh cluster with databases of every kind of name: its name."""
    for line in run_program(["pg_lsclusters", "--no-header"]).stdout.splitlines():
        run_program(["pg_dropcluster", "--stop", *line.split()[:2]])
    version = max(path.name for path in Path("/usr/lib/postgresql").iterdir())
    run_program(["pg_createcluster", version, "test", "--start-conf=auto"])
    run_program(
        ["pg_ctlcluster", "--skip-systemctl-redirect", version, "test", "start"]
    )
    sql("CREATE ROLE keeper LOGIN PASSWORD 'secret'")
    for name in HOSTILE:
        quoted = name.replace('"', '""')
        sql(f'CREATE DATABASE "{quoted}" OWNER keeper')
        sql("CREATE TABLE t (x text)", name)
        sql("INSERT INTO t VALUES ('kept in ' || current_database())", name)
    yield version
    run_program(["pg_dropcluster", "--stop", version, "test"])


def sql(statement: str, database: str = "postgres") -> str:
    quoted = database.replace("\\", "\\\\").replace("'", "\\'")
    argv = ["runuser", "-u", "postgres", "--", "psql", "-XAtq", "-v", "ON_ERROR_STOP=1"]
    argv += ["-d", f"dbname='{quoted}'", "-c", statement]
    return run_program(argv, cwd=Path("/")).stdout.strip()


def test_postgresql_comes_back_from_its_dump(hooks: Path, postgresql: str) -> None:
    run_hook(hooks / "postgresql")
    directory = DUMPS / "postgresql" / f"{postgresql}-test"
    names = {path.name for path in directory.iterdir()}
    assert len(names) == len(HOSTILE) + 2  # postgres, globals.sql
    assert "..%2F..%2F..%2Ftmp%2Fx.dump" not in names
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
    for name in HOSTILE:
        quoted = name.replace('"', '""')
        sql(f'DROP DATABASE "{quoted}"')
    sql("DROP ROLE keeper")
    as_postgres = ["runuser", "-u", "postgres", "--"]
    globals_sql = (directory / "globals.sql").read_text()
    run_program([*as_postgres, "psql", "-Xq"], stdin=globals_sql, cwd=Path("/"))
    for path in directory.glob("*.dump"):
        if path.name != "postgres.dump":
            restore = [*as_postgres, "pg_restore", "--create", "-d", "postgres"]
            with path.open("rb") as dump:
                subprocess.run(restore, stdin=dump, check=True, cwd="/")
    for name in HOSTILE:
        assert sql("SELECT x FROM t", name) == f"kept in {name}"
        assert sql("SELECT tableowner FROM pg_tables WHERE tablename='t'", name)


def test_postgresql_fails_closed(hooks: Path, postgresql: str) -> None:
    run_hook(hooks / "postgresql")
    directory = DUMPS / "postgresql" / f"{postgresql}-test"
    before = (directory / "plain.dump").read_bytes()
    # One page of it is damaged: the dump breaks off in the middle.
    file = sql("SELECT pg_relation_filepath('t')", "plain")
    data = Path(sql("SHOW data_directory")) / file
    sql("CHECKPOINT", "plain")
    run_program(
        ["pg_ctlcluster", "--skip-systemctl-redirect", postgresql, "test", "stop"]
    )
    with data.open("r+b") as page:
        page.write(b"rubbish" * 100)
    stopped = run_hook(hooks / "postgresql", check=False)
    assert (stopped.status, "is down" in stopped.stderr) == (13, True)
    run_program(
        ["pg_ctlcluster", "--skip-systemctl-redirect", postgresql, "test", "start"]
    )
    failed = run_hook(hooks / "postgresql", check=False)
    assert (failed.status, "plain.dump" in failed.stderr) == (13, True)
    assert (directory / "plain.dump").read_bytes() == before
    assert not list(directory.glob(".*"))


@pytest.fixture
def mariadb(database_servers: None) -> Iterator[None]:
    """The package's own server, with a database of each kind."""
    run_program(["install", "-d", "-o", "mysql", "/run/mysqld"])
    with subprocess.Popen(
        ["mariadbd", "--user=mysql"], stderr=subprocess.DEVNULL
    ) as it:
        run_program(["mariadb-admin", "--wait=30", "--connect-timeout=30", "ping"])
        maria(
            "CREATE DATABASE `--all-databases`; CREATE DATABASE `a/b $(c) d`;"
            "CREATE DATABASE old; CREATE USER keeper IDENTIFIED BY 'secret';"
            "CREATE TABLE `a/b $(c) d`.t (x BLOB) ENGINE=InnoDB;"
            "INSERT INTO `a/b $(c) d`.t VALUES (X'00FF27');"
            "CREATE FUNCTION `a/b $(c) d`.f() RETURNS INT RETURN 7;"
            "CREATE EVENT `a/b $(c) d`.e ON SCHEDULE EVERY 1 YEAR DO SELECT 1;"
            "CREATE TABLE old.t (x INT) ENGINE=MyISAM; INSERT INTO old.t VALUES (5);"
        )
        yield
        maria("SHUTDOWN")
        it.wait(30)


def maria(statements: str) -> str:
    argv = ["mariadb", "--batch", "--skip-column-names"]
    return run_program(argv, stdin=statements).stdout.strip()


def test_mariadb_comes_back_from_its_dump(hooks: Path, mariadb: None) -> None:
    run_hook(hooks / "mariadb")
    directory = DUMPS / "mariadb"
    names = {path.name for path in directory.iterdir()}
    awkward = "a%2Fb %24%28c%29 d.sql"
    assert names == {
        "--all-databases.sql",
        awkward,
        "old.sql",
        "mysql.sql",
        "+users.sql",
    }
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
    maria("DROP DATABASE `a/b $(c) d`; DROP DATABASE old; DROP USER keeper;")
    for name in (awkward, "old.sql", "+users.sql"):
        maria((directory / name).read_text())
    assert maria("SELECT HEX(x) FROM `a/b $(c) d`.t") == "00FF27"
    assert maria("SELECT `a/b $(c) d`.f()") == "7"
    assert maria("SELECT x FROM old.t") == "5"
    assert maria("SELECT event_name FROM information_schema.events") == "e"
    assert maria("SELECT user FROM mysql.user WHERE user='keeper'") == "keeper"
    # A database that is gone leaves no dump behind, and a view that is broken stops
    # the backup with the old dump in place.
    before = (directory / "old.sql").read_bytes()
    maria("DROP DATABASE `--all-databases`; CREATE VIEW old.v AS SELECT x FROM old.t;")
    maria("DROP TABLE old.t;")
    failed = run_hook(hooks / "mariadb", check=False)
    assert (failed.status, "old.sql" in failed.stderr) == (13, True)
    assert (directory / "old.sql").read_bytes() == before
    maria("DROP VIEW old.v;")
    run_hook(hooks / "mariadb")
    assert not (directory / "--all-databases.sql").exists()
    assert not list(directory.glob(".*"))
