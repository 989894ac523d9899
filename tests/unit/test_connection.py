"""Why a session failed, told by what ssh and the server said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from byteback.client.backup import verdict
from byteback.client.transport.connection import Connection
from byteback.errors import (
    BusyError,
    BytebackError,
    NotSetUpError,
    PolicyError,
    RefusedError,
    ToolError,
    UnreachableError,
    UsageError,
)
from byteback.model.destination import Destination
from byteback.system.rsync.command import Outcome

CONNECTION = Connection(Destination("byteback", "server"), Path("key"), None, None)


@pytest.mark.parametrize(
    ("status", "details", "kind"),
    [
        (
            255,
            ("ssh: connect to host x port 22: Connection refused",),
            UnreachableError,
        ),
        (-9, (), UnreachableError),
        (255, ("byteback@x: Permission denied (publickey).",), RefusedError),
        (255, ("Host key verification failed.",), RefusedError),
        (9, ("byteback-receive: error: no",), RefusedError),
        (14, ("byteback-receive: error: too soon",), PolicyError),
        (13, ("byteback-receive: error: btrfs failed", "  ERROR: x"), ToolError),
        (75, ("byteback-receive: busy: full house", "  hint: later"), BusyError),
        (11, ("byteback-receive: error: cannot lock 'x': held by y",), BusyError),
        (143, (), UnreachableError),
        (255, ("No ED25519 host key is known for x and you have",), RefusedError),
        (255, ('Load key "key": error in libcrypto', "x: Perm"), NotSetUpError),
        (127, ("sh: 1: byteback-receive: not found",), RefusedError),
        (254, ("The server goes down.",), UnreachableError),
        (2, ("Usage: byteback-receive [OPTIONS]", "Error: No such"), RefusedError),
        (1, (), RefusedError),
        (
            255,
            ("/etc/ssh/ssh_config: terminating, 1 bad configuration options",),
            UsageError,
        ),
    ],
)
def test_how_a_session_failed(
    status: int, details: tuple[str, ...], kind: type[BytebackError]
) -> None:
    error = CONNECTION.failure(status, details)
    assert type(error) is kind
    assert error.hint or details[0].startswith("byteback-receive: ")
    assert "byteback-receive: " not in error.message or status == 127


@pytest.mark.parametrize(
    ("known_hosts", "first", "words"),
    [
        (
            None,
            "",
            "is not known",
        ),  # as after an upgrade from 0.4, which pinned nothing
        (
            None,
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @",
            "another machine may",
        ),
        (Path("known_hosts"), "", "another machine may"),
        (Path("known_hosts"), "No RSA host key is known for x and", "does not hold it"),
    ],
)
def test_a_host_key_that_nobody_pinned_is_no_attack(
    known_hosts: Path | None, first: str, words: str
) -> None:
    connection = replace(CONNECTION, known_hosts=known_hosts)
    error = connection.failure(255, (first, "Host key verification failed."))
    assert words in error.message


def test_what_the_server_said_last_is_not_lost_behind_a_banner() -> None:
    banner = tuple(f"Line {number} of the law." for number in range(30))
    said = ("byteback-receive: error: no", "rsync error")
    with pytest.raises(RefusedError, match=r"no$"):
        verdict.check(Outcome(12, remote_messages=banner, stderr_tail=said), CONNECTION)


def test_what_the_server_said_first_is_not_lost_behind_what_rsync_adds() -> None:
    said = ("byteback-receive: error: no such thing", "  hint: do that", *"abcdef")
    buried = Outcome(
        12, remote_messages=said, stderr_tail=("rsync: x", "rsync error: y")
    )
    with pytest.raises(RefusedError, match="no such thing") as failure:
        verdict.check(buried, CONNECTION)
    assert failure.value.hint == "do that"
    failed = Outcome(13, remote_messages=("byteback-receive: error: btrfs failed",))
    with pytest.raises(ToolError, match="btrfs failed"):
        verdict.check(failed, CONNECTION)


def test_a_lost_login_is_told_apart_from_a_lost_line() -> None:
    denied = Outcome(
        255, remote_messages=("byteback@x: Permission denied (publickey).",)
    )
    with pytest.raises(RefusedError, match="does not take this machine's key"):
        verdict.check(denied, CONNECTION)
