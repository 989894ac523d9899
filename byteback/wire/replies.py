"""The answers of a server to a new client: one JSON object a line.

A reader ignores keys that it does not know, so that either side may be the newer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from byteback.errors import RefusedError, quote
from byteback.wire import coverage

PROTOCOL = 1
MAX_TREE = 64  # characters
MAX_SIZE = 2**63  # bytes: more than any file system holds
MAX_SHOWN = 100  # characters of a line that is none of ours


class ForeignTextError(RefusedError):
    """The server printed something else before its answer."""


class Hello(NamedTuple):
    """The answer to a ping: who is there, and whom the key stands for."""

    byteback: str  # the server's version
    protocol: int
    host: str
    is_old_line: bool = False  # the key's line in authorized_keys is the old tool's
    tree: str | None = None  # current's name, empty for none; older servers: None
    machines: bool = False  # the server remembers which machine a client is
    details: bool = False  # Complete may tell a size, a clock and sources
    sources: tuple[str, ...] | None = None  # of what current holds; None: not known


class Claimed(NamedTuple):
    """The answer to Claim."""

    host: str
    was_other: bool  # the client was another machine until now


class Completion(NamedTuple):
    """The answer to Complete. ``snapshot`` is None if none was due yet."""

    snapshot: str | None
    newest: str | None  # the host's newest snapshot, this one included
    tree: str | None = None  # as Hello's, empty too if the last push is another one


class End(NamedTuple):
    """The last line of a listing: without it the listing was cut off."""

    found: int
    current_is_whole: bool  # False: the last transfer into current never finished
    incomplete: tuple[
        str, ...
    ] = ()  # snapshots that lack files: the client could not read them
    size: int | None = None  # bytes, where they were asked for
    # Snapshots, "current" among them, that hold less than another one, and what.
    bounded: tuple[tuple[str, tuple[str, ...]], ...] = ()


def format_reply(reply: Hello | Claimed | Completion | End) -> str:
    """One line of JSON, without the newline."""
    import json

    return json.dumps(reply._asdict())


def parse_hello(text: str) -> Hello:
    """Raises RefusedError if ``text`` is no Hello: then the server is an old one.

    Raises ForeignTextError if other lines come before it: what a login shell prints
    there would be in the way of rsync, too.
    """
    *earlier, last = text.strip().splitlines() or [""]
    before, brace, rest = last.partition("{")
    fields = _parse(brace + rest)
    version, protocol, host = (fields.get(k) for k in ("byteback", "protocol", "host"))
    if not (
        isinstance(version, str) and isinstance(protocol, int) and isinstance(host, str)
    ):
        raise _not_understood()
    check_is_alone([*earlier, before])
    is_old_line = fields.get("is_old_line") is True
    machines = fields.get("machines") is True
    tree = _text(fields, "tree")
    return Hello(
        *(version, protocol, host, is_old_line, tree, machines),
        details=fields.get("details") is True,
        sources=_sources(fields.get("sources")),
    )


def parse_claimed(text: str) -> Claimed:
    """Raises RefusedError if ``text`` is no Claimed."""
    fields = _parse(text)
    host, was_other = fields.get("host"), fields.get("was_other")
    if not (isinstance(host, str) and isinstance(was_other, bool)):
        raise _not_understood()
    return Claimed(host, was_other)


def check_is_alone(earlier: Sequence[str]) -> None:
    """Raise ForeignTextError if the server printed text ``earlier`` than its answer."""
    for line in earlier:
        if line.strip():
            raise ForeignTextError(
                "the server prints text of its own in each session: "
                f"{quote(line.strip()[:MAX_SHOWN])}",
                hint="find out there what prints it, in /etc/ssh/sshrc or the byteback "
                "user's .bashrc, say, and have it print nothing",
            )


def parse_completion(text: str) -> Completion:
    """Raises RefusedError if ``text`` is no Completion."""
    fields = _parse(text)
    snapshot, newest = fields.get("snapshot"), fields.get("newest")
    if "snapshot" not in fields or not all(
        value is None or isinstance(value, str) for value in (snapshot, newest)
    ):
        raise _not_understood()
    return Completion(snapshot, newest, _text(fields, "tree"))


def parse_end(fields: dict[str, Any]) -> End | None:
    """The End that a listing's line holds, or None if it holds an entry."""
    found, whole = fields.get("found"), fields.get("current_is_whole")
    if isinstance(found, int) and isinstance(whole, bool):
        told = fields.get("incomplete")  # which older servers do not tell
        incomplete = told if isinstance(told, list) else []
        names = tuple(name for name in incomplete if isinstance(name, str))
        size = fields.get("size")
        is_size = type(size) is int and 0 <= size < MAX_SIZE
        bounded = _bounded(fields.get("bounded"))
        return End(found, whole, names, size if is_size else None, bounded)
    return None


def _bounded(told: object) -> tuple[tuple[str, tuple[str, ...]], ...]:
    found = []
    for pair in told if isinstance(told, list) else ():
        if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str):
            sources = _sources(pair[1])
            if sources is not None:
                found.append((pair[0], sources))
    return tuple(found)


def _sources(told: object) -> tuple[str, ...] | None:
    """What is no list of sources counts as not told: it is for people alone."""
    try:
        return coverage.check_sources(told) if isinstance(told, list) else None
    except RefusedError:
        return None


def _text(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) and len(value) <= MAX_TREE else None


def _parse(text: str) -> dict[str, Any]:
    import json

    lines = text.strip().splitlines()
    try:
        fields = json.loads(lines[-1]) if lines else None
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise _not_understood()
    return fields


def _not_understood() -> RefusedError:
    return RefusedError(
        "the server does not answer as byteback 1.0 or later does",
        hint="upgrade the byteback package on the server first, then the clients",
    )
