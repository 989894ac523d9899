"""The request of an enrolment, and the server's answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteback.client.setup import enrol_reply
from byteback.client.setup.enrol_reply import ForcedCommandError, NameTakenError
from byteback.errors import (
    BytebackError,
    NotSetUpError,
    RefusedError,
    ToolError,
    UsageError,
)
from byteback.model.public_key import PublicKey, parse_public_key
from byteback.server.access import enrolment
from byteback.system.ssh.session import RemoteResult
from tests.unit.test_authorized_keys import KEY

PROGRAM = "byteback-setup-client-receive"


def test_request_of_the_old_tool_is_understood() -> None:
    command = (
        f"{PROGRAM} a.example {KEY.kind} {KEY.line.split()[1]} byteback client key"
    )
    request = enrolment.parse_forced(command)
    assert (request.host, request.key.blob) == ("a.example", KEY.blob)
    assert request.key.comment == "byteback client key"
    assert not request.replace_key


def test_a_key_by_hand_may_be_in_quotes() -> None:
    apart, quoted = (
        enrolment.parse_words(("a.example", *words))
        for words in (KEY.line.split(), [KEY.line])
    )
    assert (quoted.host, quoted.key) == (apart.host, apart.key) == ("a.example", KEY)
    for words in [("a.example",), ("a.example", KEY.kind), (KEY.line,), ()]:
        with pytest.raises(UsageError):
            enrolment.parse_words(words)


@pytest.mark.parametrize("replace_key", [False, True])
def test_client_and_server_agree(replace_key: bool) -> None:
    command = enrol_reply.format_request("a.example", KEY, replace_key=replace_key)
    request = enrolment.parse_forced(command)
    assert (request.host, request.key) == ("a.example", KEY)
    assert request.replace_key is replace_key


@given(st.text())
def test_no_shell_finds_anything_in_a_request(comment: str) -> None:
    key = PublicKey(KEY.kind, KEY.blob, comment)
    command = enrol_reply.format_request("h", key, replace_key=False)
    assert not set(command) & set("\n\r\t'\"\\$`;|&<>(){}[]*?!#~")
    assert enrolment.parse_forced(command).key.blob == KEY.blob


@pytest.mark.parametrize(
    "command",
    [
        None,
        "",
        " ",
        "id",
        "sh -c id",
        f"/usr/bin/{PROGRAM} h {KEY.line}",
        f"{PROGRAM}x h {KEY.line}",
        f"{PROGRAM} --from * h {KEY.line}",
        f"{PROGRAM} --forced h {KEY.line}",
        f"{PROGRAM} --json=1 h {KEY.line}",
        f"{PROGRAM} -- h {KEY.line}",
        f"{PROGRAM} h {KEY.line} " + "x" * 40000,
        f"{PROGRAM} h {KEY.line}\n{KEY.line}",
        f"{PROGRAM}\th {KEY.line}",
    ],
)
def test_forced_key_does_nothing_else(command: str | None) -> None:
    with pytest.raises(RefusedError):
        enrolment.parse_forced(command)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "h",
        f"h {KEY.kind}",
        f"../h {KEY.line}",
        f".ssh {KEY.line}",
        f"h/i {KEY.line}",
        f"h restrict {KEY.line}",
        f'h command="id" {KEY.line}',
        f"h --json {KEY.line}",
    ],
)
def test_bad_names_and_keys_are_usage_errors(words: str) -> None:
    with pytest.raises(UsageError):
        enrolment.parse_forced(f"{PROGRAM} {words}")


@pytest.mark.parametrize("address", ["", 'x"', "a b", "x\n", "a=b", "\\"])
def test_addresses_that_would_leave_their_quotes(address: str) -> None:
    with pytest.raises(UsageError):
        enrolment.check_address(address)


def test_answers_are_read() -> None:
    text = f"Welcome to vault!\nbyteback 1.2: replaced h with key {KEY.fingerprint}\n"
    reply = enrol_reply.parse_reply(RemoteResult(0, text, ""), "'vault'")
    assert (reply.result, reply.version) == ("replaced", "1.2")
    old = enrol_reply.parse_reply(RemoteResult(0, "Create subvolume\n", ""), "'vault'")
    assert old.version is None


@pytest.mark.parametrize(
    ("status", "stderr", "kind", "words"),
    [
        (127, "sh: 1: not found", NotSetUpError, "not installed"),
        (9, f"{PROGRAM}: error: it has one\n  reason: name-taken", NameTakenError,
         "it has one"),
        (9, f"{PROGRAM}: error: it has one\n  hint: use --replace-key", RefusedError,
         "it has one"),
        (9, f"{PROGRAM}: error: no\n  hint: other", RefusedError, "no"),
        (10, f"motd\n{PROGRAM}: error: no btrfs", NotSetUpError, "no btrfs"),
        (2, f"{PROGRAM}: error: bad name", UsageError, "bad name"),
        (70, f"{PROGRAM}: error: oh", BytebackError, "oh"),
        (9, "byteback-receive: error: refused", ForcedCommandError, "only send"),
        (1, "This account is currently not available.", ToolError, "status 1"),
        (-1, "", ToolError, "status -1"),
    ],
)  # fmt: skip
def test_failures_keep_the_servers_words(
    status: int, stderr: str, kind: type[BytebackError], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        enrol_reply.parse_reply(RemoteResult(status, "", stderr), "'vault'")
    assert type(caught.value) is kind


def test_server_cannot_send_escapes_to_the_terminal() -> None:
    stderr = f"{PROGRAM}: error: \x1b[2Jgone"
    with pytest.raises(BytebackError) as caught:
        enrol_reply.parse_reply(RemoteResult(9, "", stderr), "'vault'")
    assert "\x1b" not in caught.value.message


def test_comment_that_cannot_be_sent_is_cleaned() -> None:
    key = parse_public_key(f"{KEY.kind} {KEY.line.split()[1]} root@h (new; $HOME)")
    request = enrol_reply.format_request("h", key, replace_key=False)
    assert request.endswith(" root@h new HOME")
