"""The server's readers of a client's words, and of files that others may write.

Each function reads ``data`` as the server would and fails if it answers by anything but
a typed error, or accepts what leads out of the client's own tree.
"""

from __future__ import annotations

import io
import math
import tomllib
from datetime import timedelta
from pathlib import PurePosixPath

from byteback.errors import BytebackError, RefusedError, UsageError
from byteback.model.glob.pattern import (
    Literal,
    Pattern,
    Wild,
    compile_patterns,
    escape_name,
    make_absolute,
)
from byteback.model.hostname import is_host_name
from byteback.model.key_line import format_client_line, parse_key_line
from byteback.model.public_key import parse_public_key
from byteback.model.snapshot import parse_snapshot_name
from byteback.server.access import enrolment
from byteback.server.search import run
from byteback.server.store import settings
from byteback.server.transfer import rsync_args
from byteback.system.rsync import fake_super
from byteback.wire import requests

TIMEOUT_S = 600
PROGRAM = PurePosixPath("/usr/bin/byteback-receive")
OWN_WORDS = {"--sender", "--exclude=.", "--files-from=-", "--fake-super"}
REFUSED_LETTERS = set("sLkKbyT")


def read_request(data: bytes) -> None:
    """SSH_ORIGINAL_COMMAND of a client's key, and what becomes of it."""
    try:
        request = requests.parse_request(data)
        match request:
            case requests.Push(words):
                check_argv(rsync_args.build_push(words, TIMEOUT_S).words, ["./"])
            case requests.Pull(snapshot, _, words, patterns):
                check_snapshot(snapshot)
                check_pull(words)
                check_patterns(compile_patterns(patterns))
            case requests.List(snapshot, _, _, patterns):
                check_snapshot(snapshot)
                check_patterns(compile_patterns(patterns))
            case _:
                again = requests.format_request(request).encode()
                assert requests.parse_request(again) == request
    except RefusedError as refusal:
        check_message(refusal)


def check_snapshot(name: str) -> None:
    """It is one component of a path, and never a hidden one."""
    assert "/" not in name
    assert not name.startswith((".", "-"))
    assert name.isascii()
    assert name.isprintable()


def check_pull(words: tuple[str, ...]) -> None:
    """Names from the wire are for a confined sender; otherwise they are ours."""
    for is_confined in (True, False):
        try:
            argv = rsync_args.build_pull(
                words, TIMEOUT_S, ["./x"], is_confined=is_confined
            ).words
        except RefusedError as refusal:
            check_message(refusal)
            continue
        assert "--sender" in argv
        assert is_confined or "--files-from=-" not in argv
        check_argv(argv, ["./x"])


def check_argv(argv: tuple[str, ...], names: list[str]) -> None:
    """Whatever rsync is told is the server's own, or an option that reaches nothing."""
    end = len(argv) - len(names)
    assert argv[0] == "--server"
    assert list(argv[end:]) == names
    assert argv[end - 2 : end] == ("--fake-super", ".")
    assert argv[end - 3].startswith("--timeout=")
    assert 0 <= int(argv[end - 3].partition("=")[2]) <= TIMEOUT_S
    table = rsync_args.PUSH_OPTIONS | rsync_args.PULL_OPTIONS
    for word in argv[1 : end - 2]:
        assert word.startswith("-")
        assert not set("/\0\n\r ") & set(word.replace("%i %n%L", ""))
        assert len(word) < 300
        if word.startswith("--"):
            assert word in OWN_WORDS or word[2:].partition("=")[0] in table
        elif word[1] not in "B@":
            assert not set(word[1:].partition("e")[0]) & REFUSED_LETTERS
            if "e" in word:
                assert "." in word.partition("e")[2]


def read_patterns(data: bytes) -> None:
    """A new client's patterns on standard input, and names to try them on."""
    try:
        texts = run.read_patterns(io.BytesIO(data))
        check_patterns(compile_patterns(texts))
    except RefusedError as refusal:
        check_message(refusal)
        return
    for text in texts:
        name = text.replace("/", "")
        exact = compile_patterns([escape_name("/" + name)])
        check_patterns(exact)
        if name not in ("", ".", ".."):
            assert [one.components for one in exact] == [(Literal(name),)]
        for absolute in make_absolute(text, "/home/somebody {*}"):
            assert absolute.startswith("/")


def check_patterns(patterns: list[Pattern]) -> None:
    """No component of a compiled pattern leads upwards or through a slash."""
    for one in patterns:
        for component in one.components:
            if isinstance(component, Literal):
                assert component.name not in ("", ".", "..")
                assert "\0" not in component.name
            elif isinstance(component, Wild):
                for name in ("a", "aaaaaaaaaaaaaaaaaaaaaaaab", "x\n.\udcff[]-^\\"):
                    component.matches(name)


def read_key_line(data: bytes) -> None:
    """A line of authorized_keys, whoever wrote it."""
    line = parse_key_line(data)
    if line is None:
        return
    assert line.host is None or is_host_name(line.host)
    assert not (line.host is not None and line.is_for_enrolling)
    assert isinstance(line.needs_environment, bool)


def read_enrolment(data: bytes) -> None:
    """SSH_ORIGINAL_COMMAND of a key that may enrol, and the line that comes of it."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        request = enrolment.parse_forced(text)
    except (RefusedError, UsageError) as refusal:
        check_message(refusal)
        return
    assert is_host_name(request.host)
    assert request.address is None
    line = format_client_line(request.key, request.host, PROGRAM, {})
    assert line.startswith(b'restrict,command="')
    assert not set(b"\n\r\0") & set(line)
    again = parse_key_line(line)
    assert again is not None
    assert (again.host, again.blob) == (request.host, request.key.blob)
    assert [name for name, _ in again.options] == ["restrict", "command"]
    assert parse_public_key(request.key.line) == request.key


def read_fake_stat(data: bytes) -> None:
    """The attribute in which rsync keeps owner and mode, which a client can forge."""
    noted = fake_super.parse_fake_stat(data)
    if noted is not None:
        assert 0 <= noted.mode < 1 << 18
        assert all(0 <= number < 1 << 32 for number in (noted.uid, noted.gid))
        assert all(0 <= number < 1 << 32 for number in noted.device)


def read_settings(data: bytes) -> None:
    """server.toml: what is accepted can be used."""
    try:
        table = tomllib.loads(data.decode("utf-8", "replace"))
    except (tomllib.TOMLDecodeError, RecursionError):
        return
    try:
        found = settings.parse(table, "client.example")
    except BytebackError as refusal:
        check_message(refusal)
        return
    assert 0 <= found.min_percent < found.max_percent <= 100
    assert timedelta(hours=found.snapshot_interval_hours) >= timedelta()
    assert 0 < found.io_timeout_s < 1 << 31
    assert math.isfinite(found.growth_factor + found.shrink_factor)


def read_snapshot_name(data: bytes) -> None:
    """A directory's name beside ``current``."""
    time = parse_snapshot_name(data.decode("utf-8", "surrogateescape"))
    assert time is None or time.utcoffset() == timedelta()


def check_message(error: BytebackError) -> None:
    """A refusal says something, and nothing that a terminal would act upon."""
    assert error.message
    assert error.message.isprintable()
