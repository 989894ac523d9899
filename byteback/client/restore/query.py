"""Asks the server which files are in the backups: what byteback-restore lists."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from byteback.client.restore import response
from byteback.client.settings import Files, check_key, read_destination
from byteback.client.transport.connection import Connection, connect
from byteback.client.transport.local import Origin, connect_locally
from byteback.errors import (
    BytebackError,
    RefusedError,
    UsageError,
    quote,
)
from byteback.model import coverage
from byteback.model.glob.pattern import make_absolute
from byteback.model.listing import Entry
from byteback.model.snapshot import CURRENT
from byteback.wire import requests

DEFAULT_SAMPLE = 100  # files that a verification compares
MAX_SAMPLE = 10_000
NAMES_SHOWN = 3  # of snapshots, in a remark


@dataclass(frozen=True)
class Server:
    """The server and how to reach it; None where a file or default decides."""

    destination: str | None = None
    key: Path | None = None
    io_timeout_s: int | None = None
    compress: str | None = None  # one of settings.COMPRESSION
    origin: Origin | None = None  # not None: this machine's own store, without ssh
    files: Files = field(default_factory=Files)


@dataclass(frozen=True)
class Query:
    """A search: patterns, snapshot and scope."""

    patterns: Sequence[str]
    snapshot: str = "*"
    scope: str = "newest"


@dataclass(frozen=True)
class Found:
    """The server's answer, sorted by path."""

    entries: tuple[Entry, ...]
    current_is_whole: bool
    asks_for_current: bool  # whether the query's snapshots include current
    incomplete: tuple[str, ...] = ()  # snapshots that lack files
    shown: frozenset[str] = frozenset()  # snapshots of entries that were handed on
    # Snapshots, "current" among them, that hold less than another one, and what.
    bounded: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def remark(self) -> str | None:
        """A warning about the copies that are shown."""
        remote_messages = []
        if not self.current_is_whole and self.asks_for_current:
            remote_messages.append(
                "the last backup never finished: its files in 'current' may be "
                "incomplete, and the newest snapshot comes before it"
            )
        shown = self.shown.union(entry.snapshot for entry in self.entries)
        lacking = [name for name in self.incomplete if name in shown]
        if lacking:
            names = ", ".join(lacking[:NAMES_SHOWN])
            more = "" if len(lacking) <= NAMES_SHOWN else " and more"
            remote_messages.append(
                f"when {names}{more} was made, some files could not be read: "
                "those are missing there, or of an earlier time"
            )
        return "; ".join([*remote_messages, *self._bounds(shown)]) or None

    def _bounds(self, shown: Collection[str]) -> list[str]:
        """What is said of snapshots that hold less than another one."""
        by_sources: dict[str, list[str]] = {}
        for name, sources in self.bounded:
            # What current has not is found in older snapshots, and may be out of date.
            if name in shown or (name == CURRENT and self.asks_for_current):
                by_sources.setdefault(coverage.describe(sources), []).append(name)
        return [
            f"{', '.join(names[:NAMES_SHOWN])}"
            f"{'' if len(names) <= NAMES_SHOWN else ' and more'} "
            f"{'holds' if len(names) == 1 else 'hold'} {what} only: "
            "the rest is in other snapshots"
            for what, names in by_sources.items()
        ]


def list_files(
    server: Server, query: Query, take: Callable[[list[Entry]], None] | None = None
) -> Found:
    """Find what matches, for ``take`` as for ask.

    Raises BytebackError if nothing matches, else as answer.receive.
    """
    with connected(server) as connection:
        return find(connection, query, take)


@contextlib.contextmanager
def connected(server: Server) -> Iterator[Connection]:
    """A Connection for the length of the block; see connect for what it raises."""
    if server.origin is not None:
        yield connect_locally(server.origin)
        return
    key = check_key(server.key or server.files.key)
    destination = read_destination(server.files, server.destination)
    with connect(destination, key, server.files.known_hosts) as connection:
        yield connection


def find(
    connection: Connection,
    query: Query,
    take: Callable[[list[Entry]], None] | None = None,
    *,
    elsewhere: str = "leave --snapshot out to look in all of them",
) -> Found:
    """Find the files that match; relative patterns start in the working directory.

    ``take`` is as for ask. Raises BytebackError if nothing matches, with
    ``elsewhere`` as the hint where only some snapshots were searched; else as
    answer.receive.
    """
    found = ask(connection, query, absolute_patterns(query.patterns), take)
    if not found.shown:
        raise BytebackError(
            "nothing in the backups matches "
            + ", ".join(quote(text) for text in query.patterns),
            hint="a pattern is a whole path: '/**/NAME' looks for a name everywhere"
            if query.snapshot == "*"
            else f"that is, in snapshot {quote(query.snapshot)}; {elsewhere}",
        )
    return found


def absolute_patterns(texts: Sequence[str]) -> list[str]:
    """The patterns as the server takes them; raises UsageError for what is none."""
    # Nothing of it is in a path from the top, and it may have been removed.
    is_needed = not all(text.startswith("/") for text in texts)
    directory = _working_directory() if is_needed else "/"
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


def ask(
    connection: Connection,
    query: Query,
    patterns: Sequence[str],
    take: Callable[[list[Entry]], None] | None = None,
) -> Found:
    """Find the files that absolute ``patterns`` match, even if there is none.

    With ``take``, which gets the entries as they come, Found holds none of them.
    """
    try:
        snapshot = requests.check_snapshot(query.snapshot)
    except RefusedError as error:
        raise UsageError(error.message) from None
    asked = response.ResponseGuard(snapshot, patterns)
    entries: list[Entry] = []
    shown: set[str] = set()

    def check(some: list[Entry]) -> None:
        asked.check(some)
        shown.update(entry.snapshot for entry in some)
        (take or entries.extend)(some)

    request = requests.Find(snapshot, query.scope)
    end = response.receive(connection, request, patterns, response.parse_entry, check)
    return Found(
        tuple(entries),
        end.current_is_whole,
        fnmatch.fnmatchcase(CURRENT, snapshot),
        end.incomplete,
        frozenset(shown),
        end.bounded,
    )


def _working_directory() -> str:
    try:
        return str(Path.cwd())
    except OSError as error:
        raise UsageError(
            f"cannot tell the working directory: {error.strerror}",
            hint="change to a directory that exists",
        ) from None
