"""server.toml: what is accepted can be used, by every part of the server."""

from __future__ import annotations

import tomllib

import pytest

from byteback.errors import UsageError
from byteback.server.store.settings import parse


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
