"""Which copy counts, and what a listing shows of it."""

from __future__ import annotations

import json
import stat

import pytest

from byteback.errors import RefusedError
from byteback.model.listing import (
    Entry,
    Table,
    format_human_size,
    format_json,
    format_mtime,
    format_table,
    parse_entry,
    rank_trees,
)

OLD, NEW = "2026-11-20T20:15+0000", "2026-11-22T20:15+0100"
FILE = Entry(NEW, "/etc/hosts", stat.S_IFREG | 0o4755, 1536, 1000, 0, 10**18 + 5)
LINK = Entry(OLD, "/l\x1b[2J", stat.S_IFLNK | 0o777, 3, 0, 0, 0, target="a\udcff")
DEVICE = Entry("current", "/dev/x", stat.S_IFBLK | 0o660, 0, 0, 6, 0, device=(8, 17))


def test_current_and_foreign_names_count_as_now() -> None:
    """Behind them come the snapshots, newest first by time and not by name."""
    names = ["saved", OLD, "current", NEW, "another"]
    assert rank_trees(names, current_is_whole=True) == [
        *("current", "another", "saved"),
        *(NEW, OLD),
    ]


def test_an_unfinished_current_ranks_behind_the_newest_snapshot() -> None:
    """Its files may be half written."""
    names = [OLD, "current", NEW, "saved"]
    assert rank_trees(names, current_is_whole=False) == [NEW, "current", "saved", OLD]
    assert rank_trees(["current"], current_is_whole=False) == ["current"]


def test_table_lines_up_and_escapes() -> None:
    """One dashed line; no name drives the terminal; devices show their numbers."""
    header, dashes, *rows = format_table([FILE, LINK, DEVICE])
    assert " ".join(header.split()) == "snapshot modestring size uid gid mtime path"
    assert dashes == "-" * len(dashes)
    column = header.index("path")
    assert [row[column:] for row in rows] == [
        "/etc/hosts",
        "/l\\x1b[2J -> a\\xff",
        "/dev/x",
    ]
    assert "-rwsr-xr-x  1536" in rows[0]
    assert "brw-rw----  8,17" in rows[2]
    assert "1.5K" in list(format_table([FILE], human=True))[2]


def test_table_can_tell_since_when() -> None:
    """In a column before the path: the others stand as in every listing."""
    entry = FILE._replace(first_seen=OLD)
    header, _, row = format_table([entry], first_seen=True)
    plain_header, _, plain_row = format_table([entry])
    assert header.split() == [*plain_header.split()[:-1], "since", "path"]
    assert row.split() == [*plain_row.split()[:-1], OLD, "/etc/hosts"]
    assert row.startswith(NEW)


@pytest.mark.parametrize("entry", [FILE, LINK, DEVICE])
def test_json_round_trip(entry: Entry) -> None:
    """Every field, and every byte of a name, survives; the line is plain ASCII."""
    line = format_json(entry)
    assert line.isascii()
    assert "\n" not in line
    assert parse_entry(json.loads(line)) == entry


@pytest.mark.parametrize(
    "change",
    [
        {"path": "relative"},
        {"path": "/a/../b"},
        {"path": "/a//b"},
        {"path": "/a/."},
        {"path": "/\0"},
        {"path": "/\ud800"},
        {"path": None},
        {"snapshot": 1},
        {"mode": "0"},
        {"size": True},
        {"device": [1]},
        {"device": ["a", 1]},
        {"target": 5},
    ],
)
def test_a_hostile_server_is_not_believed(change: dict[str, object]) -> None:
    """Paths that could lead elsewhere and wrong types are refused."""
    fields = json.loads(format_json(FILE)) | change
    with pytest.raises(RefusedError):
        parse_entry(fields)


def test_what_is_no_object_is_refused() -> None:
    values: list[object] = ["", "snapshot  modestring", [], None]
    for value in values:
        with pytest.raises(RefusedError):
            parse_entry(value)


def test_a_table_that_starts_before_its_last_line() -> None:
    """Columns line up from each line to the next but where one has to grow."""
    table = Table()
    assert table.add([FILE]) == []
    assert table.waiting == 1
    header, dashes, first = table.start()
    assert [header, dashes, first] == list(format_table([FILE]))
    wide = FILE._replace(size=10**15, path="/wide")
    [second] = table.add([wide])
    [third] = table.add([FILE])
    assert first.index("/") < second.index("/") == third.index("/")
    assert table.start() == []
    assert table.waiting == 0


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0"),
        (1023, "1023"),
        (1024, "1.0K"),
        (1536, "1.5K"),
        (10 * 1024, "10K"),
        (1024**2 - 1, "1.0M"),
        (5 * 1024**3, "5.0G"),
    ],
)
def test_human_sizes(size: int, expected: str) -> None:
    """As ls -h writes them."""
    assert format_human_size(size) == expected


def test_times_no_calendar_holds() -> None:
    """A file's time can be anything that a client says."""
    assert format_mtime(2**62 * 10**9).startswith("@")
    assert format_mtime(-(10**9)).startswith("19")
