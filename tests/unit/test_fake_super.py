"""The notes of rsync --fake-super are read, and nothing else is believed."""

from __future__ import annotations

import ctypes
import os
import stat
from pathlib import Path

import pytest

from byteback.system.rsync.fake_super import (
    ATTRIBUTE,
    LONGEST,
    FakeStat,
    is_readable,
    parse_fake_stat,
    read_fake_stat,
)

VALUE = b"104755 0,0 1000:2000"
FOUND = FakeStat(stat.S_IFREG | 0o4755, (0, 0), 1000, 2000)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file in a place where users' attributes can be set."""
    path = tmp_path / "file"
    path.touch()
    try:
        os.setxattr(path, ATTRIBUTE, VALUE)
    except OSError as error:
        pytest.skip(f"no extended attributes in {tmp_path}: {error.strerror}")
    return path


def test_reads_a_path_or_an_open_file(file: Path) -> None:
    """Both ways give the same."""
    assert read_fake_stat(file) == FOUND
    with file.open("rb") as opened:
        assert read_fake_stat(opened.fileno()) == FOUND


def test_nothing_noted_is_nothing_wrong(file: Path, tmp_path: Path) -> None:
    """Absent, or not there at all."""
    os.removexattr(file, ATTRIBUTE)
    assert read_fake_stat(file) is None
    with file.open("rb") as opened:
        assert read_fake_stat(opened.fileno()) is None
    assert read_fake_stat(tmp_path / "missing") is None


def test_links_are_not_followed(file: Path, tmp_path: Path) -> None:
    """The attribute of what a planted link points to is not its own."""
    link = tmp_path / "link"
    link.symlink_to(file)
    assert read_fake_stat(link) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (VALUE, FOUND),
        (VALUE + b"\0", FOUND),
        (b"60660 8,17 0:6", FakeStat(stat.S_IFBLK | 0o660, (8, 17), 0, 6)),
        (b"120777 0,0 0:0", FakeStat(stat.S_IFLNK | 0o777, (0, 0), 0, 0)),
        (b"", None),
        (b"garbage", None),
        (b"104755 0,0 1000", None),
        (b"104755 0,0 -1:0", None),
        (b"108755 0,0 0:0", None),
        (b"755 0,0 0:0", None),
        (b"170755 0,0 0:0", None),
        (b"2104755 0,0 0:0", None),
        (b"104755 0,0 9999999999:0", None),
        (b"104755 0,0 0:0 more", None),
        (b"104755  0,0 0:0", None),
    ],
)
def test_parse(value: bytes, expected: FakeStat | None) -> None:
    """Malformed values count as absent."""
    assert parse_fake_stat(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        *(b"100644 0,0 0:0", b"100640 0,0 5:6\0", b" 100644 8,1 4294967295:0"),
        *(b"+100644 -1,0 0:0 and more", b"777777777777 0,0 9999999999:0"),
        *(b"", b"\0" * 14, b"100644 0,0 0:", b"100644 0,0 0", b"100644 0 ,0 0:0"),
        *(
            b"1006440,0 0:0",
            b"9 0,0 0:0",
            b"100644 0,0 0:\0000",
            b"1 2,3 4:x",
            b"1-2,3 4:5",
        ),
        *(b"108 0,0 0:0", b"100644 0,0\n0:0", b"100644\t0,\v0 0:\x0c0", b"- 1 2,3 4:5"),
    ],
)
def test_a_note_is_readable_if_rsyncs_sscanf_takes_it(value: bytes) -> None:
    numbers = (ctypes.c_uint * 5)()
    places = [ctypes.byref(numbers, 4 * at) for at in range(5)]
    taken = ctypes.CDLL(None).sscanf(value, b"%o %d,%d %d:%d", *places)
    assert is_readable(value) is (taken == 5)


def test_a_note_that_rsync_has_no_room_for() -> None:
    value = b"100644 0,0 0:0".ljust(LONGEST, b"0")
    assert is_readable(value)
    assert not is_readable(value + b"0")
