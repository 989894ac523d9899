"""A server's answer to a search, and the reading of a user's patterns."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from byteback.client.restore.query import Found, absolute_patterns
from byteback.client.restore.response import (
    MAX_LINE,
    Reader,
    parse_answer,
    parse_entry,
    refuse_unasked,
)
from byteback.errors import RefusedError, UnreachableError, UsageError
from byteback.model.listing import Entry, format_json
from byteback.wire.replies import End, format_reply, parse_end, parse_hello

ENTRY = Entry("current", "/etc/hosts", stat.S_IFREG | 0o644, 5, 0, 0, 0)
END = format_reply(End(1, current_is_whole=True))


def answer(*lines: str) -> bytes:
    """Lines as they come from the server."""
    return "".join(f"{line}\n" for line in lines).encode()


def test_an_answer_with_its_end() -> None:
    """Keys of a newer server are ignored."""
    newer = json.dumps(json.loads(format_json(ENTRY)) | {"birth": 1})
    entries, end = parse_answer(answer(newer, END), "'server'")
    assert entries == [ENTRY]
    assert end.current_is_whole


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (format_json(ENTRY),),
        (format_json(ENTRY), format_json(ENTRY)),
    ],
)
def test_an_answer_that_was_cut_off(lines: tuple[str, ...]) -> None:
    """Half a listing is a failure and not a short listing."""
    with pytest.raises(UnreachableError, match="cut off"):
        parse_answer(answer(*lines), "'server'")


@pytest.mark.parametrize(
    "line",
    [
        "snapshot  modestring  size",
        format_json(ENTRY)[:-5],
        END,
        format_json(ENTRY).replace("/etc/hosts", "/etc/../hosts"),
        format_json(ENTRY).replace("current", "../other"),
        format_json(ENTRY).replace("current", "-x"),
    ],
)
def test_an_answer_that_is_none(line: str) -> None:
    """An old server's table, garbage, a wrong count, names that lead elsewhere."""
    with pytest.raises(RefusedError):
        parse_answer(answer(line, line, END), "'server'")


def test_an_answer_in_pieces() -> None:
    """Each line is read as soon as it is whole, and nothing behind the end."""
    reader = Reader("'server'", parse_entry)
    whole = answer(format_json(ENTRY), END, "anything")
    found = [reader.read(whole[i : i + 7]) for i in range(0, len(whole), 7)]
    assert [entry for entries in found for entry in entries] == [ENTRY]
    assert found[-1] == []
    assert reader.end().found == 1


def test_a_line_without_an_end() -> None:
    reader = Reader("'server'", parse_entry)
    assert reader.read(b"x" * MAX_LINE) == []
    with pytest.raises(RefusedError, match="without an end"):
        reader.read(b"x")


def test_patterns_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the working directory, whatever its name."""
    odd = tmp_path / "a*[b]{c,d}"
    odd.mkdir()
    monkeypatch.chdir(odd)
    assert absolute_patterns(["/x", "y"]) == [
        "/x",
        f"{tmp_path}/a\\*\\[b\\]\\{{c,d\\}}/y",
    ]
    with pytest.raises(UsageError, match="never closed"):
        absolute_patterns(["/x", "/{a,b"])
    with pytest.raises(UsageError, match="no pattern"):
        absolute_patterns([])
    odd.rmdir()
    with pytest.raises(UsageError, match="working directory"):
        absolute_patterns(["y"])


def test_a_remark_only_when_it_matters() -> None:
    """That current is unfinished says nothing about a chosen snapshot."""
    assert Found((), current_is_whole=False, asks_for_current=True).remark
    assert Found((), current_is_whole=False, asks_for_current=False).remark is None
    assert Found((), current_is_whole=True, asks_for_current=True).remark is None


def test_a_snapshot_that_lacks_files_is_named_if_it_is_shown() -> None:
    name = ENTRY.snapshot
    assert Found((), True, True, (name,)).remark is None
    remark = Found((ENTRY,), True, True, (name, "2001-01-01T00:00+0000")).remark
    assert remark is not None
    assert f"when {name} was made, some files could not be read" in remark
    assert parse_end({"found": 1, "current_is_whole": True}) == End(1, True)
    told = {"found": 1, "current_is_whole": True, "incomplete": [name, 5]}
    assert parse_end(told) == End(1, True, (name,))


@pytest.mark.parametrize(
    ("pattern", "snapshot", "path", "tree"),
    [
        ("/home/x", "*", "/etc/shadow", "current"),
        ("/home/x", "*", "/home/x/below", "current"),
        ("/home/x", "*", "/", "current"),
        ("/home/*", "*", "/home/.hidden", "current"),
        ("/etc/hosts/", "*", "/etc/hosts", "current"),
        ("/etc/hosts", "2026-*", "/etc/hosts", "current"),
        ("/etc/hosts", "*", "/etc/hosts", "*"),
    ],
)
def test_a_server_that_lists_what_was_not_asked_for(
    pattern: str, snapshot: str, path: str, tree: str
) -> None:
    """Else it could have any file of the machine restored over, by a listing of it."""
    asked = Entry("current", "/home/x", stat.S_IFREG | 0o644, 5, 0, 0, 0)
    refuse_unasked([asked], "*", ["/home/x", "/etc/*"])
    with pytest.raises(RefusedError, match="not asked for"):
        refuse_unasked([asked._replace(path=path, snapshot=tree)], snapshot, [pattern])


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/", "/"),
        ("/**/", "/a/b"),
        ("/{a,b}/../[!x]?", "/cc"),
        ("/a/**/*.conf", "/a/b/c/d.conf"),
        ("/a/**/*.conf", "/a/d.conf"),
        ("/caf\udce9*", "/caf\udce9s"),
    ],
)
def test_what_was_asked_for_is_taken(pattern: str, path: str) -> None:
    directory = Entry("saved-by-hand", path, stat.S_IFDIR | 0o755, 5, 0, 0, 0)
    refuse_unasked([directory], "*", [pattern])


@pytest.mark.parametrize(
    ("field", "number"),
    [
        ("mode", -1),
        ("mode", 1 << 40),
        ("size", 10**400),
        ("uid", -1),
        ("mtime_ns", 1 << 99),
    ],
)
def test_numbers_that_no_file_has(field: str, number: int) -> None:
    """A path that stat(2) refuses is refused here, not later."""
    fields = json.loads(format_json(ENTRY)) | {field: number}
    with pytest.raises(RefusedError):
        parse_answer(answer(json.dumps(fields), END), "'server'")


def test_a_bomb_of_brackets() -> None:
    with pytest.raises(RefusedError):
        parse_answer(b"[" * 100_000 + b"\n", "'server'")
    with pytest.raises(RefusedError):
        parse_hello("[" * 100_000)
    end = parse_end({"found": 0, "current_is_whole": True, "size": 10**400})
    assert end is not None
    assert end.size is None
