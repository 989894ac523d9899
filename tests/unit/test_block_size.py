"""Deltas are as fine as their memory allows."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteback.client.backup.largest_file import (
    LARGEST,
    MAX_BLOCKS,
    SMALLEST,
    UNKNOWN,
    LargestSeen,
    choose_block_size,
    read_largest,
    scan_largest,
    write_largest,
)

GIB = 1 << 30


@pytest.mark.parametrize(
    ("largest", "block"),
    [
        (0, 4096),
        (GIB, 4096),
        (GIB + 1, 8192),
        (8 * GIB, 32768),
        (32 * GIB, 131072),
        (32 * GIB + 1, None),
    ],
)
def test_block_for_the_largest_file(largest: int, block: int | None) -> None:
    assert choose_block_size(largest) == block


@given(st.integers(0, 1 << 50))
def test_memory_is_bounded(largest: int) -> None:
    block = choose_block_size(largest)
    if block is not None:
        assert SMALLEST <= block <= LARGEST
        assert largest <= block * MAX_BLOCKS


def test_the_largest_file_is_remembered(tmp_path: Path) -> None:
    state = tmp_path / "lib" / "largest"
    assert read_largest(state) is None
    write_largest(123456, state)
    assert read_largest(state) == 123456


@pytest.mark.parametrize("content", [b"", b"x", b"-5", b"\xff", b"9" * 30])
def test_a_damaged_memory_is_no_memory(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "largest").write_bytes(content)
    assert read_largest(tmp_path / "largest") is None


def test_an_unwritable_memory_is_passed_over() -> None:
    write_largest(1, Path("/proc/version/largest"))


def test_sizes_are_read_from_what_rsync_prints() -> None:
    seen = LargestSeen(10)
    sent = ("5 <f+++++++++ etc/a", "4096 cd+++++++++ etc/", "700000 <f.st...... x y")
    for line in (*sent, "deleting 9999999", "800000 .f..t...... only its time", ""):
        seen.take(line)
    assert seen.size == 700000


def test_the_largest_is_found_below_the_sources_and_not_where_others_are(
    tmp_path: Path,
) -> None:
    tree, foreign = tmp_path / "tree", tmp_path / "tree" / "a" / "nfs"
    foreign.mkdir(parents=True)
    (tree / "a" / "big").write_bytes(b"x" * 5000)
    (foreign / "bigger").write_bytes(b"x" * 6000)
    (tmp_path / "beside").write_bytes(b"x" * 7000)
    (tree / "link").symlink_to("/usr/bin/python3")
    (tree / "loop").symlink_to(tree)
    sources = [str(tree), str(tree / "gone"), str(tree / "a" / "big")]
    assert scan_largest(sources, {str(foreign)}) == 5000
    assert scan_largest([str(tree)], ()) == 6000


def test_where_looking_takes_too_long_the_choice_is_rsyncs(tmp_path: Path) -> None:
    assert scan_largest([str(tmp_path)], (), time_limit_s=-1) == UNKNOWN
    assert choose_block_size(UNKNOWN) is None
