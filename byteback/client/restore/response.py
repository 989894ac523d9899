"""Reads the server's answer to a search, and checks it against what was asked for.

A listing may be of a million lines, and take minutes. So none of it is kept here, and
the caller is told several times a second what has come, even if that is nothing.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import select
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import IO, Generic, TypeVar

from byteback.client.transport.connection import REQUEST_TIMEOUT_S, Connection
from byteback.errors import RefusedError, UnreachableError, quote
from byteback.model import listing
from byteback.model.glob import automaton
from byteback.model.glob.pattern import compile_patterns
from byteback.model.listing import Entry
from byteback.system import files, process, signals
from byteback.wire import replies, requests

Line = TypeVar("Line")
TICK_S = 0.25
CHUNK = 1 << 16
MAX_LINE = 1 << 20  # bytes: a path and a link's target, each byte as \\udcXX, and more


def receive(
    connection: Connection,
    request: requests.Find,
    patterns: Sequence[str],
    parse: Callable[[object], Line],
    take: Callable[[list[Line]], None],
) -> replies.End:
    """Ask, and hand each few lines of the answer to ``take``, parsed, as they come.

    ``take`` gets an empty list when nothing has come for TICK_S. An exception of its
    own ends the search, at the server too.
    Raises UnreachableError if the line failed or was silent for REQUEST_TIMEOUT_S,
    RefusedError or another BytebackError with the server's own words if it failed.
    """
    reader = Reader(connection.name, parse)
    try:
        with contextlib.closing(_chunks(connection, request, patterns)) as chunks:
            for chunk in chunks:
                take(reader.read(chunk))
    except RefusedError:
        if not reader.found:
            connection.ping()  # says so if the server is too old to know the request
        raise
    return reader.end()


class Reader(Generic[Line]):
    """Lines out of pieces of an answer, of which ``parse`` reads one."""

    def __init__(self, server: str, parse: Callable[[object], Line]) -> None:
        self.found = 0
        self._server = server
        self._parse = parse
        self._end: replies.End | None = None
        self._rest = b""

    def read(self, chunk: bytes) -> list[Line]:
        """The lines that ``chunk`` completes; raises RefusedError for what is none."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_LINE:
            raise RefusedError("the server's listing has a line without an end")
        return list(self._read_lines(lines))

    def end(self) -> replies.End:
        """The last line; raises UnreachableError if it has not come."""
        if self._end is None:
            raise UnreachableError(f"the listing from {self._server} was cut off")
        return self._end

    def _read_lines(self, lines: Iterable[bytes]) -> Iterable[Line]:
        for line in lines:
            if self._end is not None:
                return
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError):
                fields = None
                before = line.partition(b"{")[0].decode("utf-8", "replace")
                replies.check_is_alone([before] if self.found == 0 else [])
            end = replies.parse_end(fields) if isinstance(fields, dict) else None
            if end is not None and end.found == self.found:
                self._end = end
                return
            self.found += 1
            yield self._parse(fields)


def parse_entry(fields: object) -> Entry:
    """An entry of a listing; raises RefusedError for what is none."""
    entry = listing.parse_entry(fields)
    requests.check_snapshot(entry.snapshot)
    return entry


def parse_answer(answer: bytes, server: str) -> tuple[list[Entry], replies.End]:
    """Read a whole listing; raises as parse_lines."""
    return parse_lines(answer, server, parse_entry)


def parse_lines(
    answer: bytes, server: str, parse: Callable[[object], Line]
) -> tuple[list[Line], replies.End]:
    """Read the lines of a whole answer, of which ``parse`` reads one.

    Raises UnreachableError if its last line is missing, RefusedError if it is none.
    """
    reader = Reader(server, parse)
    return reader.read(answer), reader.end()


class ResponseGuard:
    """Checks a server's answer against what was asked for.

    What is listed is restored, over live files too: a server in other hands must not
    be the one to choose which.
    """

    def __init__(self, snapshot: str, patterns: Sequence[str]) -> None:
        self._snapshot = snapshot
        self._start = automaton.merge_patterns(compile_patterns(patterns))
        self._above, self._leading = "", self._start

    def check(self, entries: Iterable[Entry]) -> None:
        """Raise RefusedError if an entry was not asked for."""
        for entry in entries:
            progress = self._progress(entry.path)
            is_match = progress.is_match(is_directory=entry.is_directory)
            if not (is_match and _is_one_of(entry.snapshot, self._snapshot)):
                raise RefusedError(
                    f"the server lists {quote(entry.path)} in {quote(entry.snapshot)}, "
                    "which was not asked for",
                    hint="nothing was restored: find out what happened to the server",
                )

    def _progress(self, path: str) -> automaton.Progress:
        directory, _, name = path.rpartition("/")
        if directory != self._above:
            self._above, self._leading = directory, self._start
            for component in directory.split("/")[1:]:
                self._leading = self._leading.after(component)
        return self._leading.after(name) if name else self._leading


def refuse_unasked(
    entries: Sequence[Entry], snapshot: str, patterns: Sequence[str]
) -> None:
    """Raise RefusedError if the server lists what was not asked for; see Asked."""
    ResponseGuard(snapshot, patterns).check(entries)


def _is_one_of(name: str, snapshot: str) -> bool:
    return "*" not in name and fnmatch.fnmatchcase(name, snapshot)


def _chunks(
    connection: Connection, request: requests.Find, patterns: Sequence[str]
) -> Generator[bytes, None, None]:
    """The answer in the pieces in which it comes, b"" for a moment of silence."""
    # Files, for there are two pipes too many to be served by turns.
    with files.in_memory() as asked, files.in_memory() as said:
        for pattern in patterns:
            asked.write(pattern.encode("utf-8", "surrogateescape") + b"\0")
        asked.seek(0)
        with signals.block_signals():
            running = process.start(
                connection.command(request),
                stdin=asked.fileno(),
                stderr=said.fileno(),
                in_child=process.dying_with_parent(),
            )
            assert running.stdout is not None  # noqa: S101 # for the type checker
            try:
                with signals.allow_signals():
                    yield from _read(running.stdout, connection.name)
                    status = running.wait()
            finally:
                process.stop(running)
                running.stdout.close()
        if status != 0:
            said.seek(0)
            raise connection.failure(status, process.last_lines(said.read(CHUNK)))


def _read(stream: IO[bytes], server: str) -> Generator[bytes, None, None]:
    """The data as it comes, until there is no more."""
    waiting = select.poll()
    waiting.register(stream, select.POLLIN)
    heard = time.monotonic()
    while True:
        if waiting.poll(TICK_S * 1000):
            chunk = os.read(stream.fileno(), CHUNK)
            if not chunk:
                return
            heard = time.monotonic()
            yield chunk
        elif time.monotonic() - heard > REQUEST_TIMEOUT_S:
            raise UnreachableError(f"{server} did not answer in time")
        else:
            yield b""
