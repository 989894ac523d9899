"""Dumps of real PostgreSQL and MariaDB servers can be read back."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import CONFIGURATION
from tests.integration.hook_runs import DUMPS, run_hook
from tests.integration.programs import run_program
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.databases


@pytest.fixture(autouse=True)
def clean(installed: Path) -> Iterator[None]:
    """No dumps and no lists of databases, before and afterwards."""
    yield
    shutil.rmtree(DUMPS, ignore_errors=True)
    shutil.rmtree(CONFIGURATION, ignore_errors=True)


HOSTILE = ["plain", "with space", "../../../tmp/x", "dbname=postgres", "it's \\ %2F"]


@pytest.fixture
def postgresql() -> Iterator[str]:
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


def test_postgresql_comes_back_from_its_dump(postgresql: str) -> None:
    run_hook("postgresql")
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


def test_postgresql_fails_closed(postgresql: str) -> None:
    run_hook("postgresql")
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
    stopped = run_hook("postgresql", check=False)
    assert (stopped.status, "is down" in stopped.stderr) == (13, True)
    run_program(
        ["pg_ctlcluster", "--skip-systemctl-redirect", postgresql, "test", "start"]
    )
    failed = run_hook("postgresql", check=False)
    assert (failed.status, "plain.dump" in failed.stderr) == (13, True)
    assert (directory / "plain.dump").read_bytes() == before
    assert not list(directory.glob(".*"))


@pytest.fixture
def mariadb() -> Iterator[None]:
    """The package's own server, with a database of each kind."""
    run_program(["install", "-d", "-o", "mysql", "/run/mysqld"])
    with subprocess.Popen(
        ["mariadbd", "--user=mysql"], stderr=subprocess.DEVNULL
    ) as it:
        run_program(["mariadb-admin", f"--wait={PATIENCE_S:.0f}", "ping"])
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
        it.wait(PATIENCE_S)


def maria(statements: str) -> str:
    argv = ["mariadb", "--batch", "--skip-column-names"]
    return run_program(argv, stdin=statements).stdout.strip()


def test_mariadb_comes_back_from_its_dump(mariadb: None) -> None:
    run_hook("mariadb")
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
    failed = run_hook("mariadb", check=False)
    assert (failed.status, "old.sql" in failed.stderr) == (13, True)
    assert (directory / "old.sql").read_bytes() == before
    maria("DROP VIEW old.v;")
    run_hook("mariadb")
    assert not (directory / "--all-databases.sql").exists()
    assert not list(directory.glob(".*"))
