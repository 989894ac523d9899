"""server.toml: what is accepted can be used, by every part of the server."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from byteback.errors import UsageError
from byteback.server.store import settings
from byteback.server.store.settings import ServerSettings, parse


@pytest.mark.parametrize(
    "line",
    [
        "snapshot_interval_hours = nan",
        "snapshot_interval_hours = inf",
        "snapshot_interval_hours = 1e300",
        "snapshot_interval_hours = -1",
        "growth_factor = inf",
        "growth_factor = 1e300",
        "shrink_factor = nan",
        "growth_percent = nan",
        "min_percent = nan",
        "io_timeout_s = 99999999999",
        "io_timeout_s = 0",
        "max_transfers = 0",
    ],
)
def test_numbers_that_nothing_can_be_done_with(line: str) -> None:
    """They would be tracebacks later, in the middle of somebody's backup."""
    with pytest.raises(UsageError, match=line.partition(" ")[0]):
        parse(tomllib.loads(line))


@pytest.mark.parametrize("value", ["1", "0", '"true"', "1.0"])
def test_yes_and_no_are_no_numbers(value: str) -> None:
    with pytest.raises(UsageError, match="sealed"):
        parse(tomllib.loads(f"sealed = {value}"))
    assert parse(tomllib.loads("sealed = true")).sealed
    assert not parse({}).sealed
    with pytest.raises(UsageError, match="max_transfers"):
        parse(tomllib.loads("max_transfers = true"))


@pytest.mark.parametrize(
    "line", ["snapshot_interval_hours = 0", "growth_factor = 1e6", "growth_percent = 0"]
)
def test_the_ends_of_what_makes_sense(line: str) -> None:
    name = line.partition(" ")[0]
    assert getattr(parse(tomllib.loads(line)), name) == tomllib.loads(line)[name]


def test_a_clients_table_counts_whatever_the_case_of_its_name() -> None:
    table = tomllib.loads('[host."WWW.example"]\nsnapshot_interval_hours = 1')
    assert parse(table, "www.example").snapshot_interval_hours == 1
    assert parse(table, "www2.example").snapshot_interval_hours != 1


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "server.toml"


HARMLESS = (
    ("max_transfer = 3", "max_transfer"),
    ("max_transfers = '3'", "max_transfers"),
    ("max_transfers = 0", "max_transfers"),
    ("min_percent = 20", "min_percent"),
    ("growth_factor = nan", "growth_factor"),
    ("host = 3", "host"),
    ("[host]\na = 3", "'a'"),
    ("[host.a]\nmax_transfers = 3", "max_transfers"),
    ("[host.a]\ngrowth_factor = 0.5", "growth_factor"),
    ("[host.a.example]\ngrowth_factor = 3", 'host."a.example"'),
    ("[status]\nmail = 'x'", "mail"),
)


@pytest.mark.parametrize(("line", "named"), HARMLESS)
def test_what_is_wrong_with_one_key_changes_no_other(
    file: Path, line: str, named: str
) -> None:
    file.write_text(f"snapshot_interval_hours = 2\nsealed = true\n{line}\n")
    right = ServerSettings(snapshot_interval_hours=2.0, sealed=True)
    assert settings.load("a", file) == right
    assert settings.load(None, file) == right
    assert settings.load_all(["a", "b"], file) == {"a": right, "b": right}
    (fault,) = settings.faults(file)
    assert named in fault.error.message + (fault.error.hint or "")
    with pytest.raises(UsageError):
        settings.refuse(settings.faults(file))


UNSAFE = (
    "confinement = 'requird'",
    "confinement = true",
    "confinment = 'require'",
    "Confinement = 'require'",
    "[confinement]\nrequire = true",
    "sealed = 'true'",
    "seal = true",
    "saeled = true",
    "confinemnet = 'off'",
    "[host.a]\nsealed = true",
    "[host.a]\nconfinement = 'require'",
)


@pytest.mark.parametrize("line", UNSAFE)
def test_nothing_is_served_where_safety_depends_on_the_key(
    file: Path, line: str
) -> None:
    file.write_text(f"max_transfers = 3\n{line}\n")
    for host in ("a", "b", None):
        with pytest.raises(UsageError, match=r"(?i)sea?l|confi?n|saeled"):
            settings.load(host, file)
    (fault,) = settings.faults(file)
    assert fault.is_safety


def test_a_file_that_cannot_be_read_may_hold_anything(file: Path) -> None:
    for content in (b"\0\1", b"x = ", b"\xff = 1"):
        file.write_bytes(content)
        with pytest.raises(UsageError, match="no valid TOML"):
            settings.load(None, file)
        assert [fault.is_safety for fault in settings.faults(file)] == [True]
    file.unlink()
    assert settings.faults(file) == []
    assert settings.load("a", file) == ServerSettings()


def test_all_that_is_wrong_is_counted(file: Path) -> None:
    file.write_text("what = 1\nmax_transfers = 0\n")
    with pytest.raises(UsageError, match=r"'what' .*\(and 1 more such keys\)"):
        settings.refuse(settings.faults(file))
