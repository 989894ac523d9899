"""Asks the server which files are in the backups: what byteback-restore lists."""

from __future__ import annotations

import contextlib
import fnmatch
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from byteback.client.connection import Connection, connect
from byteback.client.settings import Files, check_key, read_destination
from byteback.errors import (
    BytebackError,
    RefusedError,
    UnreachableError,
    UsageError,
    quote,
)
from byteback.model import listing, states
from byteback.model.listing import Entry
from byteback.model.pattern import compile_patterns, make_absolute
from byteback.model.snapshot import CURRENT
from byteback.wire import replies, requests

Line = TypeVar("Line")
NAMES_SHOWN = 3  # of snapshots, in a remark


@dataclass(frozen=True)
class Server:
    """Where the backups are; None where a file or default decides."""

    destination: str | None = None
    key: Path | None = None
    io_timeout_s: int | None = None
    files: Files = field(default_factory=Files)


@dataclass(frozen=True)
class Query:
    """What is looked for."""

    patterns: Sequence[str]
    snapshot: str = "*"
    scope: str = "newest"


@dataclass(frozen=True)
class Found:
    """What the server answered, sorted by path."""

    entries: tuple[Entry, ...]
    current_is_whole: bool
    asks_for_current: bool  # whether the query's snapshots include current
    incomplete: tuple[str, ...] = ()  # snapshots that lack files

    @property
    def remark(self) -> str | None:
        """What the reader must know about the copies that are shown."""
        remarks = []
        if not self.current_is_whole and self.asks_for_current:
            remarks.append(
                "the last backup never finished: its files in 'current' may be "
                "incomplete, and the newest snapshot comes before it"
            )
        shown = {entry.snapshot for entry in self.entries}
        lacking = [name for name in self.incomplete if name in shown]
        if lacking:
            names = ", ".join(lacking[:NAMES_SHOWN])
            more = "" if len(lacking) <= NAMES_SHOWN else " and more"
            remarks.append(
                f"when {names}{more} was made, some files could not be read: "
                "those are missing there, or of an earlier time"
            )
        return "; ".join(remarks) or None


def list_files(server: Server, query: Query) -> Found:
    """Find what matches. Raises BytebackError if nothing does, or as Connection."""
    with connected(server) as connection:
        return find(connection, query)


@contextlib.contextmanager
def connected(server: Server) -> Iterator[Connection]:
    """A Connection for the length of the block; see connect for what it raises."""
    key = check_key(server.key or server.files.key)
    destination = read_destination(server.files, server.destination)
    with connect(destination, key, server.files.known_hosts) as connection:
        yield connection


def find(connection: Connection, query: Query) -> Found:
    """What matches; relative patterns start in the working directory.

    Raises BytebackError if nothing matches, else as Connection.request.
    """
    found = ask(connection, query, absolute_patterns(query.patterns))
    if not found.entries:
        raise BytebackError(
            "nothing in the backups matches "
            + ", ".join(quote(text) for text in query.patterns),
            hint=None
            if query.snapshot == "*"
            else f"that is, in snapshot {quote(query.snapshot)}; leave --snapshot out "
            "to look in all of them",
        )
    return found


def absolute_patterns(texts: Sequence[str]) -> list[str]:
    """The patterns as the server takes them; raises UsageError for what is none."""
    directory = _working_directory()
    patterns = []
    for text in texts:
        alternatives = make_absolute(text, directory)
        if not alternatives:
            raise UsageError(
                f"{quote(text)} has a brace that is never closed",
                hint="write \\{ for a brace in a name",
            )
        patterns += alternatives
    if not patterns:
        raise UsageError("no pattern was given", hint="name the files to look for")
    return patterns


def ask(connection: Connection, query: Query, patterns: Sequence[str]) -> Found:
    """What absolute ``patterns`` match, even if that is nothing."""
    try:
        snapshot = requests.check_snapshot(query.snapshot)
    except RefusedError as error:
        raise UsageError(error.message) from None
    request = requests.Find(snapshot, query.scope)
    answer = ask_for(connection, request, patterns)
    entries, end = parse_answer(answer, connection.name)
    refuse_unasked(entries, snapshot, patterns)
    return Found(
        tuple(entries),
        end.current_is_whole,
        fnmatch.fnmatchcase(CURRENT, snapshot),
        end.incomplete,
    )


def ask_for(
    connection: Connection, request: requests.Find, patterns: Sequence[str]
) -> bytes:
    """The server's answer as it is. Raises as Connection.request."""
    stdin = b"".join(p.encode("utf-8", "surrogateescape") + b"\0" for p in patterns)
    try:
        return connection.request(request, stdin=stdin).stdout
    except RefusedError:
        connection.ping()  # says so if the server is too old to know the request
        raise


def parse_answer(answer: bytes, server: str) -> tuple[list[Entry], replies.End]:
    """Read the lines of a listing; raises as parse_lines."""

    def parse(fields: object) -> Entry:
        entry = listing.parse_entry(fields)
        requests.check_snapshot(entry.snapshot)
        return entry

    return parse_lines(answer, server, parse)


def refuse_unasked(
    entries: Sequence[Entry], snapshot: str, patterns: Sequence[str]
) -> None:
    """Raise RefusedError if the server lists what was not asked for.

    What is listed is restored, over live files too: a server in other hands must not
    be the one to choose which.
    """
    start = states.merge_patterns(compile_patterns(patterns), with_all_below=False)
    above, leading = "", states.closure([start])
    for entry in entries:
        directory, _, name = entry.path.rpartition("/")
        if directory != above:
            above, leading = directory, states.closure([start])
            for component in directory.split("/")[1:]:
                leading = states.after(leading, component)
        ends = states.after(leading, name) if name else leading
        is_match = any(
            state.is_end or (state.is_end_for_directories and entry.is_directory)
            for state in ends
        )
        if not (is_match and _is_one_of(entry.snapshot, snapshot)):
            raise RefusedError(
                f"the server lists {quote(entry.path)} in {quote(entry.snapshot)}, "
                "which was not asked for",
                hint="nothing was restored: find out what happened to the server",
            )


def _is_one_of(name: str, snapshot: str) -> bool:
    return "*" not in name and fnmatch.fnmatchcase(name, snapshot)


def parse_lines(
    answer: bytes, server: str, parse: Callable[[object], Line]
) -> tuple[list[Line], replies.End]:
    """Read the lines of an answer, of which ``parse`` reads one.

    Raises UnreachableError if its last line is missing, RefusedError if it is none.
    """
    found: list[Line] = []
    for line in answer.splitlines():
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            fields = None
        end = replies.parse_end(fields) if isinstance(fields, dict) else None
        if end is not None and end.found == len(found):
            return found, end
        found.append(parse(fields))
    raise UnreachableError(f"the listing from {server} was cut off")


def _working_directory() -> str:
    try:
        return str(Path.cwd())
    except OSError as error:
        raise UsageError(
            f"cannot tell the working directory: {error.strerror}",
            hint="change to a directory that exists",
        ) from None
