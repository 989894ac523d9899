"""The requests of a client to a server.

A request is the command of one ssh session. The server's side must serve the clients
of the Ruby tool too (0.2.8 to 0.4), which join words with single spaces and quote
nothing. Newer clients ask for JSON replies, and send patterns on standard input, where
any byte and any number of them can travel.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from byteback.errors import RefusedError, quote
from byteback.wire import coverage

MAX_REQUEST = 128 * 1024  # bytes; Linux itself allows no longer environment string
MAX_WORDS = 20_000
MAX_WORD = 16 * 1024  # bytes: PATH_MAX, each byte as =XX, with room to spare
MAX_NUMBER = 10**15 - 1
MAX_SIZE = 10**18 - 1  # bytes; SQLite keeps no integer above 2**63
MAX_PATTERN_INPUT = 64 * 1024 * 1024  # bytes of NUL-terminated patterns on stdin

_SNAPSHOT = re.compile(r"[A-Za-z0-9*_][A-Za-z0-9:+*._-]{0,254}", re.ASCII)
# rsync 3.2.4 and later put a backslash before each of these in what they send to a
# shell, and before a backslash unless it escapes one of "*?[]" (rsync's options.c).
_ESCAPED = re.compile(rb"\\([^*?\[\]])")
_PUSH = re.compile(r"[0-9a-f]{32}", re.ASCII)
MACHINE = "--machine="
_MACHINE = re.compile(r"[0-9a-f]{32}", re.ASCII)
# The words of Complete that take a number, each with the largest one.
_COMPLETE_NUMBERS = {
    "--files": MAX_NUMBER,
    "--missed": MAX_NUMBER,
    "--size": MAX_SIZE,
    "--clock": MAX_NUMBER,
}
_QUOTED_PRINTABLE = re.compile(rb"=([0-9A-Fa-f]{2})")


class Ping(NamedTuple):
    """A test of the connection. With ``json`` the server answers a Hello."""

    json: bool = False
    probe: bool = False  # with json: see probe.py for what follows


class Claim(NamedTuple):
    """The client is this machine, from now on: the answer is a Claimed."""

    machine: str  # 32 hexadecimal digits


class Complete(NamedTuple):
    """The transfer is complete: snapshot ``current`` now.

    ``incomplete`` tells that some files could not be read; ``files`` is how many the
    client says it sent, for the record only. ``push`` is what it called its transfer;
    ``missed`` how many changes a full comparison found that its record had not told.
    ``size`` is the bytes of all files, ``clock`` the client's seconds since 1970 and
    ``sources`` what was backed up: they are for a server whose Hello has ``details``,
    and for people to read.
    """

    json: bool = False
    incomplete: bool = False
    files: int | None = None
    push: str | None = None
    missed: int | None = None
    size: int | None = None
    clock: int | None = None
    sources: tuple[str, ...] | None = None


class List(NamedTuple):
    """An old client's listing: the answer is a table on stdout, and status 0."""

    snapshot: str
    every_version: bool
    verbose: bool
    patterns: tuple[str, ...]


class Find(NamedTuple):
    """A listing for a new client: patterns on stdin, JSON lines on stdout."""

    snapshot: str
    scope: str  # one of SCOPES
    since: str | None = None  # a snapshot: list what changed from it to ``snapshot``
    sample: int | None = None  # so many at random, of what is in what matches, too


class Push(NamedTuple):
    """rsync wants to write into ``current``; ``words`` are rsync's own, unchecked.

    ``machine`` names the machine that sends, to a server whose Hello has ``machines``.
    """

    words: tuple[str, ...]
    machine: str | None = None


class Pull(NamedTuple):
    """rsync wants to read what ``patterns`` match; ``words`` are unchecked options.

    A new client names one snapshot exactly and sends the names inside rsync's
    protocol (``--files-from=-``): then ``patterns`` is the single word ``./``.
    """

    snapshot: str
    every_version: bool
    words: tuple[str, ...]
    patterns: tuple[str, ...]


Request = Ping | Claim | Complete | List | Find | Push | Pull

# "size" lists nothing: only the sum of all sizes, of what is below, too.
SCOPES = ("newest", "versions", "copies", "size")


def format_request(request: Ping | Claim | Complete | Find) -> str:
    """The command of a new client's request; parse_request reads it back."""
    words = ["byteback-receive"]
    match request:
        case Ping(json, probe):
            words += ["--ping"] + ["--json"] * json + ["--probe"] * probe
        case Claim(machine):
            words += ["--claim", f"{MACHINE}{machine}"]
        case Complete():
            words += ["--complete"] + ["--json"] * request.json
            words += ["--incomplete"] * request.incomplete
            if request.files is not None:
                words.append(f"--files={request.files}")
            words += [f"--push={request.push}"] if request.push else []
            if request.missed is not None:
                words.append(f"--missed={request.missed}")
            if request.size is not None and 0 <= request.size <= MAX_SIZE:
                words.append(f"--size={request.size}")
            if request.clock is not None and 0 <= request.clock <= MAX_NUMBER:
                words.append(f"--clock={request.clock}")
            if request.sources:
                words.append(f"--sources={coverage.format_sources(request.sources)}")
        case Find():
            words += ["--find", f"--snapshot={request.snapshot}"]
            words.append(f"--scope={request.scope}")
            words += [f"--since={request.since}"] if request.since else []
            words += [f"--sample={request.sample}"] if request.sample else []
    return " ".join(words)


def new_push() -> str:
    """A random number for a transfer, by which its client knows it again."""
    import os

    return os.urandom(16).hex()


def format_push_program(
    push: str | None = None, base: str | None = None, machine: str | None = None
) -> str:
    """The --rsync-path with which a new client makes one transfer.

    ``push`` is a number of its own, ``base`` what it takes ``current`` to be, where it
    sends only changes, and ``machine`` is Push's. Older servers know none of them.
    """
    words = ["rsync", "--fake-super"] + ([f"--tree-push={push}"] if push else [])
    words += [f"--tree-base={base}"] if base else []
    return " ".join(words + ([f"{MACHINE}{machine}"] if machine else []))


def format_pull_program(snapshot: str) -> str:
    """The --rsync-path with which a new client reads from one snapshot."""
    return f"byteback-restore --fake-super --snapshot {check_snapshot(snapshot)}"


def parse_request(command: bytes) -> Request:
    """Read SSH_ORIGINAL_COMMAND. Raises RefusedError, with a reason, for the rest."""
    _check_bytes(command)
    program, _, rest = command.strip(b" ").partition(b" ")
    if program == b"sudo":  # clients up to 0.2.7 asked root for the snapshot
        program, _, rest = rest.partition(b" ")
        if program != b"byteback-snapshot":
            raise RefusedError(f"{quote(program)} cannot be run here")
    match program:
        case b"byteback-receive":
            return _parse_control(_plain_words(rest))
        case b"byteback-snapshot":
            return _parse_old_snapshot(_plain_words(rest))
        case b"rsync":
            return _parse_push(_decoded(_escaped_words(rest)))
        case b"byteback-restore":
            return _parse_pull(_escaped_words(rest))
        case b"restore":
            raise RefusedError(
                "this client's byteback package is too old to restore from here",
                hint="upgrade the byteback package on the client and try again",
            )
        case b"":
            raise RefusedError(
                "this key is for backups only: it opens no shell",
                hint="log in with a key or account of your own",
            )
    raise RefusedError(f"{quote(program)} cannot be run here")


def _check_bytes(command: bytes) -> None:
    if len(command) > MAX_REQUEST:
        raise RefusedError(f"the request is longer than {MAX_REQUEST} bytes")
    for character, name in ((b"\0", "a NUL"), (b"\n", "a newline"), (b"\r", "a CR")):
        if character in command:
            raise RefusedError(f"the request contains {name} character")


def _plain_words(rest: bytes) -> list[bytes]:
    """Words of a client that quotes nothing; a doubled space is an empty argument."""
    return _checked([word for word in rest.split(b" ") if word])


def _escaped_words(rest: bytes) -> list[bytes]:
    """Words of rsync: a space after a backslash does not end the word."""
    words = re.split(rb"(?<!\\) ", rest.replace(b"\\\\", b"\\\0"))
    # The NUL, which the request cannot hold, keeps an escaped backslash from escaping
    # the space behind it while the words are told apart.
    plain = [_ESCAPED.sub(rb"\1", w).replace(b"\0", b"\\") for w in words if w]
    return _checked(plain)


def _checked(words: list[bytes]) -> list[bytes]:
    if len(words) > MAX_WORDS:
        raise RefusedError(f"the request has more than {MAX_WORDS} words")
    if any(len(word) > MAX_WORD for word in words):
        raise RefusedError(f"a word of the request is longer than {MAX_WORD} bytes")
    return words


def _decoded(words: Sequence[bytes]) -> tuple[str, ...]:
    return tuple(word.decode("utf-8", "surrogateescape") for word in words)


def _parse_control(raw: list[bytes]) -> Request:
    mode = raw[0] if raw else b""
    words = list(_decoded(raw))
    if mode == b"--ping":
        return Ping(*_flags(words[1:], "--json", "--probe", "--verbose")[:2])
    if mode == b"--claim" and len(words) == 2:
        return Claim(_machine(words[1]))
    if mode == b"--complete":
        return _parse_complete(words[1:])
    if mode == b"--find":
        return _parse_find(words[1:])
    if b"--list" in raw:
        return _parse_list(raw)
    raise RefusedError(
        f"byteback-receive does not know {quote(mode)}" if mode else "no mode was given"
    )


def _parse_push(words: tuple[str, ...]) -> Push:
    named = [word for word in words if word.startswith(MACHINE)]
    machine = _machine(named[-1]) if named else None
    return Push(tuple(word for word in words if word not in named), machine)


def _machine(word: str) -> str:
    machine = word.removeprefix(MACHINE)
    if word == machine or not _MACHINE.fullmatch(machine):
        raise RefusedError(f"{quote(word)} names no machine")
    return machine


def _parse_complete(words: list[str]) -> Complete:
    push = sources = None
    numbers: dict[str, int] = {}
    flags = []
    for word in words:
        name, equals, value = word.partition("=")
        if name in _COMPLETE_NUMBERS and equals:
            numbers[name[2:]] = _number(name, value, _COMPLETE_NUMBERS[name])
        elif name == "--push" and _PUSH.fullmatch(value):
            push = value
        elif name == "--sources" and equals:
            sources = coverage.parse_sources(value)
        else:
            flags.append(word)
    json, incomplete, _ = _flags(flags, "--json", "--incomplete", "--verbose")
    return Complete(
        json=json, incomplete=incomplete, push=push, sources=sources, **numbers
    )


def _parse_find(words: list[str]) -> Find:
    snapshot, scope, since, sample = "*", "newest", None, None
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--snapshot" and equals:
            snapshot = check_snapshot(value)
        elif name == "--since" and equals:
            since = check_snapshot(value)
        elif name == "--sample" and equals:
            sample = _number(name, value)
        elif name == "--scope" and value in SCOPES:
            scope = value
        else:
            raise RefusedError(f"--find does not know {quote(word)}")
    return Find(snapshot, scope, since, sample)


def _parse_list(raw: list[bytes]) -> List:
    snapshot, every_version, verbose = "*", False, False
    position = 0
    while position < len(raw) and raw[position].startswith(b"--"):
        word = raw[position]
        position += 1
        if word == b"--snapshot" and position < len(raw):
            snapshot = check_snapshot(raw[position].decode("ascii", "replace"))
            position += 1
        elif word == b"--all":
            every_version = True
        elif word == b"--verbose":
            verbose = True
        elif word != b"--list":
            raise RefusedError(f"byteback-receive --list does not know {quote(word)}")
    return List(snapshot, every_version, verbose, _patterns(raw[position:]))


def _parse_old_snapshot(raw: list[bytes]) -> Complete:
    _flags(list(_decoded(raw)), "--snapshot", "--verbose")
    return Complete()


def _parse_pull(raw: list[bytes]) -> Pull:
    # Everything before the lone "." is an option, everything behind it a pattern.
    if b"." not in raw:
        raise RefusedError("the restore request has no '.' before its patterns")
    dot = raw.index(b".")
    snapshot, every_version, words = "*", False, []
    options = iter(raw[:dot])
    for word in options:
        if word == b"--snapshot":
            snapshot = check_snapshot(next(options, b"").decode("ascii", "replace"))
        elif word == b"--all":
            every_version = True
        else:
            words.append(word)
    return Pull(snapshot, every_version, _decoded(words), _patterns(raw[dot + 1 :]))


def _patterns(raw: Sequence[bytes]) -> tuple[str, ...]:
    return _decoded([_unquoted_printable(word) for word in raw])


def _unquoted_printable(word: bytes) -> bytes:
    plain = _QUOTED_PRINTABLE.sub(lambda m: bytes([int(m[1], 16)]), word)
    if b"\0" in plain:
        raise RefusedError("a pattern contains a NUL character")
    return plain


def check_snapshot(name: str) -> str:
    """A snapshot's name or a glob of names with ``*``; RefusedError for others."""
    if not _SNAPSHOT.fullmatch(name):
        raise RefusedError(f"{quote(name)} is no snapshot's name")
    return name


def _flags(words: Sequence[str], *known: str) -> list[bool]:
    for word in words:
        if word not in known:
            raise RefusedError(f"the server does not know {quote(word)}")
    return [name in words for name in known]


def _number(name: str, value: str, largest: int = MAX_NUMBER) -> int:
    is_number = value.isascii() and value.isdigit() and len(value) <= len(str(largest))
    if not is_number:
        raise RefusedError(f"{name} takes a number, not {quote(value)}")
    return int(value)
