"""The differences that count as a change, and how they are told."""

from __future__ import annotations

import json
import stat
from functools import partial

import pytest

from byteback.client.restore.changes import Change, parse_change
from byteback.client.restore.diff import NOW, Comparison, read_words
from byteback.errors import RefusedError, UsageError
from byteback.model.difference import (
    Difference,
    compare,
    format_difference,
    parse_difference,
)
from byteback.model.listing import Entry, format_json
from byteback.model.rsync_names import plain_name
from byteback.server.search.run import pick

FILE = Entry("current", "/etc/hosts", stat.S_IFREG | 0o644, 5, 0, 0, 0)
DIRECTORY = FILE._replace(path="/etc", mode=stat.S_IFDIR | 0o755)


def test_kinds_of_differences() -> None:
    """The later copy is shown, of what is deleted the earlier one."""
    older = FILE._replace(snapshot="2026-01-01T00:00+0000")
    assert compare(FILE, older) is None
    assert compare(None, None) is None
    assert compare(FILE, None) == Difference("new", FILE)
    assert compare(None, older) == Difference("deleted", older)
    for changed in (
        *(older._replace(mode=0o777), older._replace(size=7), older._replace(uid=7)),
        *(older._replace(gid=7), older._replace(mtime_ns=7)),
    ):
        assert compare(FILE, changed) == Difference("changed", FILE)
    assert compare(FILE, older._replace(mode=stat.S_IFLNK | 0o644, target="x"))


def test_a_directory_is_not_changed_by_what_is_in_it() -> None:
    assert compare(DIRECTORY, DIRECTORY._replace(mtime_ns=5, size=9)) is None
    assert compare(DIRECTORY, DIRECTORY._replace(uid=5)) is not None


def test_lines_are_read_back() -> None:
    difference = Difference("deleted", FILE)
    fields = json.loads(format_difference(difference))
    assert parse_difference(fields) == difference
    for wrong in (json.loads(format_json(FILE)), fields | {"change": "eaten"}, 5):
        with pytest.raises(RefusedError):
            parse_difference(wrong)


def test_words_of_a_comparison() -> None:
    """A second word is a snapshot if it can be nothing else."""
    first, second = "2026-01-01T00:00+0000", "2026-01-02*"
    assert read_words([first]) == Comparison(first, NOW, ["/"])
    assert read_words([first, "/etc"]) == Comparison(first, NOW, ["/etc"])
    assert read_words([first, second]) == Comparison(first, second, ["/"])
    assert read_words(["saved", "current", "a", "b"]) == Comparison(
        "saved", "current", ["a", "b"]
    )
    for words in (["/etc"], [NOW], ["../x"]):
        with pytest.raises(UsageError):
            read_words(words)


def test_lines_of_rsync() -> None:
    """Names that would be deleted, and times of directories."""
    time = "1970/01/01-00:00:05"
    assert parse_change(f"*deleting   0 {time} etc/new file//") == Change(
        "delete", "etc/new file"
    )
    assert parse_change("*message about it") is None
    of_etc = partial(Change, "adjust", "etc/", file_type="d", mtime_s=5)
    time_only = parse_change(f".d..t...... 0 {time} etc///")
    assert time_only == of_etc(is_only_time_of_directory=True)
    owner = parse_change(f".d..to..... 0 {time} etc///")
    assert owner == of_etc()
    file = parse_change(f".f..t...... 5 {time} etc/a//")
    assert file == Change("adjust", "etc/a", 5, mtime_s=5)


def test_names_as_rsync_writes_them() -> None:
    assert plain_name("new\\#012line \\#377 -> x\\y") == "new\nline \udcff -> x\\y"
    assert plain_name("no byte \\#777") == "no byte \\#777"


def test_a_sample_is_as_large_as_can_be() -> None:
    assert pick(iter("abc"), 5) == ["a", "b", "c"]
    many = [str(number) for number in range(1000)]
    chosen = pick(iter(many), 10)
    assert len(set(chosen) & set(many)) == 10
    assert any(set(pick(iter(many), 10)) != set(chosen) for _ in range(5))
