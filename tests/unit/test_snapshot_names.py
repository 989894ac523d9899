"""Only what the server itself would write is taken for a snapshot."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from byteback.model.hostname import is_host_name
from byteback.model.snapshot import format_snapshot_name, parse_snapshot_name

EAST = timezone(timedelta(hours=5, minutes=30))


def test_a_name_is_the_local_time_with_its_zone() -> None:
    time = datetime(2026, 11, 22, 20, 15, 42, tzinfo=EAST)
    name = format_snapshot_name(time)
    assert name == "2026-11-22T20:15+0530"
    assert parse_snapshot_name(name) == datetime(2026, 11, 22, 14, 45, tzinfo=UTC)


def test_a_name_without_a_zone_is_in_the_servers() -> None:
    parsed = parse_snapshot_name("2014-01-02T03:04", EAST)
    assert parsed == datetime(2014, 1, 1, 21, 34, tzinfo=UTC)


@pytest.mark.parametrize(
    "name",
    [
        *("", "current", "march", "12", "decommissioned", "saved-do-not-delete"),
        *("restore-2015-01-01", "2015-01-01", "2015-02-30T00:00+0000"),
        *("2015-01-01T00:00+0000 ", "2015-01-01T00:00+0000\n", "2015-01-01T24:00+0000"),
        *("2015-01-01T00:00:00+0000", "0000-01-01T00:00+0000", "2015-01-01T00:00Z"),
        *("2015-01-01T00:00+0060x", "٢٠١٥-01-01T00:00+0000"),
        "0001-01-01T00:00+2300",
    ],
)
def test_other_names_are_no_snapshots(name: str) -> None:
    assert parse_snapshot_name(name) is None


@pytest.mark.parametrize("name", ["a", "web-1.example.com", "A_b", "1", "x" * 253])
def test_host_names(name: str) -> None:
    assert is_host_name(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".ssh", "-x", "a/b", "a b", "a\n", "a\0", "ä", "x" * 254, "a'b"],
)
def test_names_that_no_host_may_have(name: str) -> None:
    assert not is_host_name(name)
