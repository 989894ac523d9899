"""Shows the changes between two snapshots, or between one and this machine."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from byteback.client.backup import rules, selections
from byteback.client.backup.rules import Request
from byteback.client.restore import pull, query, response
from byteback.client.restore.changes import Change, RsyncOutput
from byteback.client.restore.query import Query, Server
from byteback.client.restore.run import DEFAULT_IO_TIMEOUT_S
from byteback.client.settings import read_io_timeout
from byteback.client.transport.connection import Connection
from byteback.errors import IncompleteRestoreError, RefusedError, UsageError, quote
from byteback.model.difference import Difference, parse_difference
from byteback.model.listing import Entry
from byteback.model.size import format_count
from byteback.model.snapshot import CURRENT
from byteback.wire import requests

logger = logging.getLogger(__name__)

NOW = "now"
SHOWN = 5  # problems
_DATE = re.compile(r"[0-9*]{4}-[0-9*]", re.ASCII)
_KINDS = {
    "create": "deleted",
    "replace": "changed",
    "adjust": "changed",
    "delete": "new",
}


@dataclass(frozen=True)
class Comparison:
    """The two sides of a comparison: two snapshots, or one and NOW."""

    older: str
    newer: str
    patterns: Sequence[str]


@dataclass(frozen=True)
class Changed:
    """A path that is not the same in both."""

    kind: str  # of difference.KINDS
    path: str
    entry: Entry | None  # the copy in a snapshot, if the server told


def read_words(words: Sequence[str]) -> Comparison:
    """``SNAPSHOT [SNAPSHOT] [PATTERN...]``; without a second snapshot it is NOW.

    The second word is a snapshot if it is ``current``, NOW or begins with a date.
    """
    older, *rest = words
    newer = NOW
    if rest and (rest[0] in (CURRENT, NOW) or _DATE.match(rest[0])):
        newer = rest.pop(0)
    for name in (older, newer):
        try:
            requests.check_snapshot(name)
        except RefusedError as error:
            raise UsageError(
                error.message, hint="--diff takes a snapshot's name first"
            ) from None
    if older == NOW:
        raise UsageError("'now' comes second", hint="name the snapshot first")
    return Comparison(older, newer, rest or ["/"])


def compare(
    server: Server, comparison: Comparison, take: Callable[[list[Changed]], None]
) -> None:
    """Hand all differences to ``take``, sorted by path, as they come.

    Raises UsageError for patterns that are none, IncompleteRestoreError at the end if
    some files could not be compared, else as answer.receive and run_pull.
    """
    with query.connected(server) as connection:
        if comparison.newer == NOW:
            changes, problems = _with_now(connection, server, comparison)
            take(changes)
            if problems:
                raise IncompleteRestoreError(
                    f"all is compared but for {format_count(len(problems), 'problem')}",
                    details=problems[:SHOWN],
                )
            return
        response.receive(
            connection,
            requests.Find(comparison.newer, "newest", comparison.older),
            query.absolute_patterns(comparison.patterns),
            parse_difference,
            lambda found: take([_from_server(difference) for difference in found]),
        )


def _from_server(difference: Difference) -> Changed:
    return Changed(difference.kind, difference.entry.path, difference.entry)


def _with_now(
    connection: Connection, server: Server, comparison: Comparison
) -> tuple[list[Changed], Sequence[str]]:
    """List what a restore in place would change, and what backups would find new.

    And what rsync complained about.
    """
    if "*" in comparison.older:
        raise UsageError(
            f"{quote(comparison.older)} may be several snapshots",
            hint="name the one to compare with, as byteback-restore --verbose / does",
        )
    found = query.find(
        connection,
        Query(comparison.patterns, comparison.older),
        elsewhere="--diff takes another one as its first word",
    )
    selected = selections.look_up(comparison.older)
    known = selected or selections.choose(["/"], None)
    selection = rules.select(
        server.files, Request(known.sources, known.excludes), may_be_gone=True
    )
    job = pull.Pull(
        connection,
        comparison.older,
        Path("/"),
        read_io_timeout(server.files, server.io_timeout_s, DEFAULT_IO_TIMEOUT_S),
        selection.plain_flags,
        is_dry_run=True,
        with_parents=False,
        rules=("--delete", *selection.filters),
        hidden=selection.hidden,
    )
    heard = RsyncOutput(directory=job.directory)
    names = [entry.path[1:] or "./" for entry in found.entries]
    problems = pull.run_pull(job, names, heard=heard).all_problems
    changes = sorted(_changed(heard.changes), key=lambda one: one.path.split("/"))
    if selected is not None:
        return changes, problems
    logger.warning(
        "what the backup of %s was made of is not known here: of directories that are "
        "not in it only the uppermost is shown, and it may have been left out",
        comparison.older,
    )
    return list(uppermost(changes)), problems


def _changed(changes: Iterable[Change]) -> Iterator[Changed]:
    for change in changes:
        if not change.is_only_time_of_directory:
            path = "/" + change.path.removeprefix("./").rstrip("/")
            yield Changed(_KINDS[change.action], path, None)


def uppermost(changes: Iterable[Changed]) -> Iterator[Changed]:
    """All but what is new in a directory that is new itself, of changes by path."""
    above: str | None = None
    for changed in changes:
        if changed.kind != "new":
            yield changed
        elif above is None or not changed.path.startswith(f"{above}/"):
            above = changed.path
            yield changed
