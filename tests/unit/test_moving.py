"""The words by which a client is moved: what a hostile server makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from byteback.client.settings import Files, read_follow_moves
from byteback.errors import MovedError, RefusedError, UsageError
from byteback.model.destination import format_destination, parse_destination
from byteback.model.public_key import parse_public_key
from byteback.wire import failures, moving, replication
from byteback.wire.moved import Moved, check_destination, format_moved, parse_moved

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7mFMAhNc7bQJXcRqjA7dUNpH4oFUFJtBO3nhCGGk0Y"


@pytest.mark.parametrize(
    "where", ["byteback@new.example:", "ssh://b@[2001:db8::1]:22/", "u@192.0.2.1:"]
)
def test_where_to(where: str) -> None:
    moved = Moved("www", check_destination(where), parse_public_key(f"{KEY} comment"))
    text = format_moved("www", format_destination(moved.destination), KEY)
    found = parse_moved(text)
    assert (found.client, found.destination) == (moved.client, moved.destination)
    assert found.key.blob == moved.key.blob
    error = MovedError("gone", "go", text)
    lines = ["byteback-receive: error: gone", "  hint: go"]
    lines += failures.format_fields(error).splitlines()
    assert len(lines) == 5  # as many as a client keeps
    assert failures.parse_reason(lines) == failures.Reason.MOVED == error.reason
    assert failures.parse_moved_to(lines) == text
    assert failures.parse_failure(lines) == ("gone", "  hint: go")


@pytest.mark.parametrize(
    "text",
    [
        *(None, "", "www", f"www  {KEY}", f"www byteback@new:  {KEY}"),
        *(f"../www byteback@new: {KEY}", f"www byteback@new: {KEY} more"),
        *(
            f"www -oProxyCommand=id@new: {KEY}",
            f"www byteback@-oProxyCommand=id: {KEY}",
        ),
        *(f"www byteback@$(id): {KEY}", f"www byteback@%h: {KEY}", f"www a@b@c: {KEY}"),
        *(f"www byteback@new;id: {KEY}", f"www byteback@n\u00e9w: {KEY}"),
        *("www byteback@new: ssh-ed25519 AAAA", f"www byteback@new: {'A' * 3000}"),
        f"www ssh://byteback@new:0/ {KEY}",
    ],
)
def test_nowhere(text: str | None) -> None:
    with pytest.raises(RefusedError):
        parse_moved(text)


def test_requests() -> None:
    key = parse_public_key(KEY)
    for request in (
        moving.ListMoves(),
        moving.Close("www"),
        moving.Taken("www", key),
    ):
        text = replication.format_request(request)
        assert replication.parse_request(text.encode()) == request


def describe(**fields: object) -> bytes:
    line = {"key": f"{KEY} me", "options": {"from": "192.0.2.0/24,!192.0.2.9"}}
    honest: dict[str, object] = {
        "client": "www",
        "state": "open",
        "destination": "byteback@new:",
        "lines": [line],
        "machine": "a" * 32,
        "sealed": True,
    }
    return json.dumps(honest | fields).encode()


def test_moves() -> None:
    (found,) = moving.parse_moves(describe())
    assert moving.parse_moves(moving.format_move(found).encode()) == [found]
    assert found.lines[0].options == {"from": "192.0.2.0/24,!192.0.2.9"}


@pytest.mark.parametrize(
    "text",
    [
        *(b"x", b"[]", b"{}", b"7", b"[" * 100_000, describe(client="../x")),
        *(describe(client=7), describe(machine="x"), describe(lines=7)),
        *(describe(lines=[7]), describe(lines=[{"key": "x", "options": {}}])),
        describe(lines=[{"key": f'command="id" {KEY}', "options": {}}]),
        describe(lines=[{"key": KEY, "options": {"command": "id"}}]),
        describe(lines=[{"key": KEY, "options": {"from": 'x",command="id'}}]),
        describe(lines=[{"key": KEY, "options": {"expiry-time": 7}}]),
        describe(lines=[{"key": KEY, "options": []}]),
        *(describe(destination="b@new:\x1b[2J"), describe(destination=7)),
        describe(destination="b@new\n:"),
    ],
)
def test_no_moves(text: bytes) -> None:
    with pytest.raises(RefusedError):
        moving.parse_moves(text)


def test_follow_moves(tmp_path: Path) -> None:
    assert read_follow_moves(Files(tmp_path))
    for text, follows in (("true\n", True), ("\n", True), (" false\n", False)):
        (tmp_path / "follow_moves").write_text(text)
        assert read_follow_moves(Files(tmp_path)) is follows
    (tmp_path / "follow_moves").write_text("no")
    with pytest.raises(UsageError, match="holds 'no'"):
        read_follow_moves(Files(tmp_path))


def test_the_path_is_not_told() -> None:
    there = check_destination("byteback@new:some/where")
    assert there == parse_destination("byteback@new:")
    with pytest.raises(UsageError):
        check_destination("By te@new:")
