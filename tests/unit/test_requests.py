"""The requests in SSH_ORIGINAL_COMMAND, from old clients and new ones."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteback.errors import RefusedError
from byteback.wire.requests import (
    MAX_NUMBER,
    MAX_SIZE,
    Claim,
    Complete,
    Find,
    List,
    Ping,
    Pull,
    Push,
    format_pull_program,
    format_request,
    parse_request,
)

MACHINE = "0123456789abcdef" * 2
OLD_AND_NEW = {
    b"byteback-receive --ping": Ping(),
    b"byteback-receive --ping ": Ping(),  # an empty argument, joined by a space
    b"byteback-receive --ping --verbose": Ping(),
    b"byteback-receive --ping --json": Ping(json=True),
    b"byteback-receive --ping --json --probe": Ping(json=True, probe=True),
    b"byteback-receive --complete --verbose": Complete(),
    b"byteback-receive --complete  ": Complete(),
    b"byteback-receive --complete --json --incomplete --files=7": Complete(
        json=True, incomplete=True, files=7
    ),
    b"byteback-snapshot --snapshot": Complete(),
    b"sudo byteback-snapshot --snapshot --verbose": Complete(),
    b"byteback-receive --snapshot * --list /etc/a=20b": List(
        "*", False, False, ("/etc/a b",)
    ),
    b"byteback-receive --snapshot 2014-01-02T03:04+0000 --list --all --verbose  /x": (
        List("2014-01-02T03:04+0000", True, True, ("/x",))
    ),
    b"byteback-receive --find --snapshot=* --scope=versions": Find("*", "versions"),
    b"rsync --fake-super --server -lre.iLsfxC . .": Push(
        ("--fake-super", "--server", "-lre.iLsfxC", ".", ".")
    ),
    b"rsync --fake-super --machine=%s --server -lre.iLsfxC . ." % MACHINE.encode(): (
        Push(("--fake-super", "--server", "-lre.iLsfxC", ".", "."), MACHINE)
    ),
    b"byteback-receive --claim --machine=%s" % MACHINE.encode(): Claim(MACHINE),
    b"byteback-restore --fake-super --snapshot * --server --sender -lr . /a=20b /c*": (
        Pull(
            "*",
            False,
            ("--fake-super", "--server", "--sender", "-lr"),
            ("/a b", "/c*"),
        )
    ),
}


@pytest.mark.parametrize("command", OLD_AND_NEW, ids=lambda c: c.decode())
def test_requests_of_old_and_new_clients(command: bytes) -> None:
    assert parse_request(command) == OLD_AND_NEW[command]


@pytest.mark.parametrize(
    ("sent", "pattern"),
    [
        (rb"/with\ space", "/with space"),
        (rb"/br\{a,b\}", "/br{a,b}"),
        (rb"/star\*", r"/star\*"),  # the user's own escape stays one
        (rb"/two\\x", r"/two\x"),
        (rb"/dollar\$\(id\)", "/dollar$(id)"),
        (rb"/latin=E9", "/latin\udce9"),
        (b"/raw\xe9", "/raw\udce9"),
        (b"/tab\there", "/tab\there"),
        (b"/line=0Aend", "/line\nend"),
        (b"/no=ZZcode", "/no=ZZcode"),
    ],
)
def test_patterns_are_unescaped_once_then_decoded(sent: bytes, pattern: str) -> None:
    request = parse_request(b"byteback-restore --server --sender -lr . " + sent)
    assert isinstance(request, Pull)
    assert request.patterns == (pattern,)


@pytest.mark.parametrize(
    "command",
    [
        b"",
        b"  ",
        b"id",
        b"sudo id",
        b"/bin/sh -c id",
        b"rsync\t--server",
        b"restore --snapshot x",
        b"byteback-receive",
        b"byteback-receive --ping --verbose; id",
        b"byteback-receive --ping=1",
        b"byteback-receive --ping --probe=1",
        b"byteback-receive --complete --probe",
        b"byteback-receive --complete --root /srv",
        b"byteback-receive --complete --files=-1",
        b"byteback-receive --complete --missed=x",
        b"byteback-receive --complete --size=-1",
        b"byteback-receive --complete --size=1e9",
        b"byteback-receive --complete --size=%d" % (MAX_SIZE + 1),
        b"byteback-receive --complete --clock=%d" % (MAX_NUMBER + 1),
        b"byteback-receive --complete --push=../../../../../../../../../../x",
        b"byteback-receive --claim",
        b"byteback-receive --claim --machine=../x",
        b"byteback-receive --claim " + MACHINE.encode(),
        b"byteback-receive --claim --machine=%s more" % MACHINE.encode(),
        b"rsync --machine=x --server . .",
        b"byteback-receive --snapshot ../other --list /x",
        b"byteback-receive --snapshot .byteback --list /x",
        b"byteback-receive --find --snapshot=../x",
        b"byteback-receive --find --scope=all",
        b"byteback-snapshot --root /srv/byteback/other",
        b"byteback-restore --server --sender -lr /x",
        b"byteback-restore --snapshot .. --server --sender . /x",
        b"byteback-restore --snapshot",
        b"byteback-restore --server --sender . /nul=00",
        b"byteback-setup-client-receive name ssh-ed25519 AAAA",
        b"rsync --server . .\n id",
        b"rsync --server . .\0id",
        b"rsync --server . " + b"x" * 200_000,
        b"rsync --server . " + b"x" * 20_000,
        b"rsync " + b"a " * 30_000,
    ],
    ids=lambda c: c[:40].decode("ascii", "replace"),
)
def test_everything_else_is_refused_with_a_reason(command: bytes) -> None:
    with pytest.raises(RefusedError) as refusal:
        parse_request(command)
    assert refusal.value.message


@pytest.mark.parametrize(
    "request_",
    [
        Ping(json=True),
        Ping(json=True, probe=True),
        Complete(json=True, incomplete=True, files=12),
        Complete(json=True, push="0123456789abcdef" * 2, missed=0),
        Complete(json=True, missed=17),
        Complete(json=True, size=MAX_SIZE, clock=1_795_900_000),
        Complete(),
        Find("current", "copies"),
        Find("current", "newest", since="2026-11-20*"),
        Find("current", "newest", sample=400),
        Find("current", "size"),
    ],
)
def test_what_is_formatted_is_read_back(request_: Ping | Complete | Find) -> None:
    assert parse_request(format_request(request_).encode()) == request_


def test_a_size_that_the_server_would_refuse_is_not_told() -> None:
    for size in (-1, MAX_SIZE + 1):
        request_ = Complete(json=True, size=size, clock=MAX_NUMBER + 1)
        assert parse_request(format_request(request_).encode()) == Complete(json=True)


def test_pull_program_cannot_carry_anything_but_a_snapshot() -> None:
    assert format_pull_program("current").endswith("--snapshot current")
    with pytest.raises(RefusedError):
        format_pull_program("current --all; id")


@given(st.binary(max_size=300))
def test_any_bytes_are_parsed_or_refused(command: bytes) -> None:
    with contextlib.suppress(RefusedError):
        parse_request(command)


@given(
    st.sampled_from([b"rsync ", b"byteback-restore ", b"byteback-receive --list "]),
    st.binary(max_size=200),
)
def test_any_words_behind_a_known_program(program: bytes, rest: bytes) -> None:
    try:
        request = parse_request(program + rest)
    except RefusedError:
        return
    assert isinstance(request, Push | Pull | List)
    if isinstance(request, Pull | List):
        assert "/" not in request.snapshot
        assert not any("\0" in pattern for pattern in request.patterns)
