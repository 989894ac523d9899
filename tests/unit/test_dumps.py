"""The dumping hooks, with odd names and with programs that fail."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteback.client.dumps import dump as dumps
from byteback.client.dumps import postgresql, sqlite
from byteback.errors import BytebackError, ToolError


@given(st.text(min_size=1), st.text(min_size=1))
def test_file_names_are_harmless_and_their_own(one: str, other: str) -> None:
    name = dumps.file_name(one)
    assert "/" not in name
    assert "\0" not in name
    assert not name.startswith((".", "+"))
    assert (name == dumps.file_name(other)) == (one == other)


def test_a_dump_that_fails_leaves_the_one_before(tmp_path: Path) -> None:
    dump = tmp_path / "x.sql"
    dumps.write_output(["echo", "good"], dump)
    with pytest.raises(ToolError) as caught:
        dumps.write_output(["sh", "-c", "echo half; echo why >&2; exit 3"], dump)
    assert caught.value.details == ("why",)
    assert dump.read_text() == "good\n"
    assert [path.name for path in tmp_path.iterdir()] == ["x.sql"]


def test_a_half_dump_of_a_killed_run_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / ".x.sql.new").write_text("half")
    dumps.write_output(["echo", "good"], tmp_path / "x.sql")
    assert [path.name for path in tmp_path.iterdir()] == ["x.sql"]
    assert (tmp_path / "x.sql").stat().st_mode & 0o777 == 0o600


def test_dumps_of_what_is_gone_go_and_nothing_else(tmp_path: Path) -> None:
    for name in ("a.sql", "gone.sql", ".gone.sql.new", "notes.txt"):
        (tmp_path / name).touch()
    for name in (".killed", "mine"):
        (tmp_path / name).mkdir()
    dumps.forget_others(tmp_path, {"a.sql"})
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["a.sql", "mine", "notes.txt"]


def test_dumps_go_into_no_directory_of_others(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    with pytest.raises(BytebackError, match="no directory of"):
        dumps.make_directory(tmp_path / "link")


@pytest.mark.parametrize(
    ("database", "connection"),
    [
        ("plain", "dbname='plain'"),
        ("host=evil", "dbname='host=evil'"),
        ("it's \\", "dbname='it\\'s \\\\'"),
    ],
)
def test_a_databases_name_is_no_connection(database: str, connection: str) -> None:
    assert postgresql.format_connection(database) == connection


def test_sqlite_gives_up_on_a_database_that_stays_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "WAIT_S", 0.2)
    path = tmp_path / "db"
    with closing(sqlite3.connect(path)) as holder:
        holder.execute("CREATE TABLE t (x)")
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BytebackError, match="locked"):
            sqlite.copy_database(path, tmp_path / "copy")
