"""Restores files: what byteback-restore --restore does."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from byteback.client.restore import bring, damaged, preview, pull, room
from byteback.client.restore import query as find
from byteback.client.restore.bring import Task
from byteback.client.restore.changes import Change
from byteback.client.restore.plan import Batch, Layout, plan_batches
from byteback.client.restore.query import Found, Query, Server
from byteback.client.settings import (
    read_compression,
    read_io_timeout,
    read_rsync_flags,
)
from byteback.client.transport import compression
from byteback.client.transport.connection import Connection
from byteback.errors import BytebackError, IncompleteRestoreError, quote
from byteback.model import rsync_flags
from byteback.model.listing import Entry
from byteback.model.size import format_count
from byteback.system.rsync.command import Progress

logger = logging.getLogger(__name__)

DEFAULT_IO_TIMEOUT_S = 300
PROBLEMS_SHOWN = 5
# All that lies directly in the root, hidden or not.
BELOW_ROOT = ("/*", "/.*")


@dataclass(frozen=True)
class RestoreOptions:
    """The options of a restore."""

    layout: Layout
    is_dry_run: bool = False
    # Asked with a text before anything is replaced; False ends the restore.
    confirm: Callable[[str], bool] | None = None
    always_confirm: bool = False  # even if nothing is replaced
    on_progress: Callable[[Progress], None] | None = None
    insist: bool = False  # even if the disc seems too small


@dataclass(frozen=True)
class Restored:
    """The result of a restore, or of a dry run."""

    found: Found
    changes: tuple[Change, ...] = ()  # of a dry run
    kept: tuple[Change, ...] = ()  # of a dry run: newer than in the backup
    newer: int = 0  # of a dry run: how many of the changes replace what is newer
    missing: tuple[str, ...] = ()  # a sentence for each name that is not restored
    problems: tuple[str, ...] = ()  # rsync's, with single files

    def check(self) -> None:
        """Raise IncompleteRestoreError if some files could not be restored."""
        if self.missing:
            count = format_count(len(self.missing), "name")
            message = f"{count} of what was asked for could not be restored"
        elif self.problems:
            count = format_count(len(self.problems), "problem")
            message = f"all is done but for {count}"
        else:
            return
        raise IncompleteRestoreError(
            message,
            hint="the same command tries the rest again",
            details=self.problems[:PROBLEMS_SHOWN],
        )


def restore_files(server: Server, query: Query, options: RestoreOptions) -> Restored:
    """Find what matches and restore it; Restored.check tells whether that was all.

    Raises BytebackError if nothing matches, else as Connection and run_pull.
    """
    choice = read_compression(server.files, server.compress)
    with find.connected(server) as connection:
        found = find.find(connection, query)
        job = _job(connection, server, options)
        entries: Sequence[Entry] = _without_root(connection, found, options.layout)
        options = replace(options, confirm=_asked_once(options.confirm))
        lacking: list[str] = []
        while True:
            try:
                done = _restore(found, entries, job, options, choice)
            except damaged.DamagedNoteError as error:
                if len(lacking) == damaged.MOST:
                    raise
                entries = damaged.left_out(connection, entries, error)
                lacking.append(_describe_damaged(error, options.layout))
                logger.info("%s: the rest is restored without it", error.message)
            else:
                return replace(done, missing=(*done.missing, *lacking))


def _restore(
    found: Found,
    entries: Sequence[Entry],
    job: pull.Pull,
    options: RestoreOptions,
    choice: str,
) -> Restored:
    layout = options.layout
    batches = plan_batches(entries, layout, current_is_whole=found.current_is_whole)
    sizes = _sizes(job.connection, batches, job)
    tasks = [
        _prepare(job, batch, layout, size)
        for batch, size in zip(batches, sizes, strict=True)
    ]
    if options.is_dry_run:
        return _foreseen(found, tasks)
    _confirm(tasks, options)
    room.check(tasks, sizes, insist=options.insist)
    if compression.choose(job.connection, choice, job.flags):
        tasks = [replace(t, job=replace(t.job, compresses=True)) for t in tasks]
    return _bring_all(found, tasks, options)


def _asked_once(
    confirm: Callable[[str], bool] | None,
) -> Callable[[str], bool] | None:
    """``confirm`` for a restore that may begin again: a yes holds for all of it."""
    if confirm is None:
        return None
    answers: list[bool] = []

    def ask(text: str) -> bool:
        if not any(answers):
            answers.append(confirm(text))
        return answers[-1]

    return ask


def _describe_damaged(error: damaged.DamagedNoteError, layout: Layout) -> str:
    directory = layout.directory
    if layout.by_snapshot:
        directory /= error.snapshot
    name = quote(str(directory / error.path[1:]))
    return f"{name}: its owner and mode are damaged in {error.snapshot}"


def _job(connection: Connection, server: Server, options: RestoreOptions) -> pull.Pull:
    """The common part of all transfers."""
    layout = options.layout
    return pull.Pull(
        connection,
        "",
        layout.directory,
        read_io_timeout(server.files, server.io_timeout_s, DEFAULT_IO_TIMEOUT_S),
        read_rsync_flags(server.files),
        keeps_newer=layout.keeps_newer,
        is_dry_run=options.is_dry_run,
        with_parents=not layout.is_live,
    )


def _sizes(
    connection: Connection, batches: Sequence[Batch], job: pull.Pull
) -> list[int]:
    """Bytes of each batch; 0 where a dry run needs no number."""
    if job.is_dry_run and not _compares_contents(job):
        return [0] * len(batches)
    return [room.measure(connection, batch) for batch in batches]


def _compares_contents(job: pull.Pull) -> bool:
    flags = rsync_flags.parse_flags(job.flags)
    return any(flag.name == "checksum" for flag in flags)


def _prepare(job: pull.Pull, batch: Batch, layout: Layout, size: int) -> Task:
    """Look at what is there, and tell how long the server may be silent from then on.

    It reads all contents first where rsync_flags has --checksum, else one file at a
    time where that is here already.
    """
    job = replace(job, snapshot=batch.snapshot, directory=batch.directory)
    if _compares_contents(job):
        job = replace(job, silent_bytes=size)
    task = bring.prepare(job, batch, keeps_newer=layout.keeps_newer)
    largest = size
    if task.outlook is not None:
        largest = max((change.size for change in task.outlook.changes), default=0)
    silent_bytes = max(task.job.silent_bytes, largest)
    return replace(task, job=replace(task.job, silent_bytes=silent_bytes))


def _confirm(tasks: Sequence[Task], options: RestoreOptions) -> None:
    if options.confirm is None or not preview.changes_anything(tasks):
        return
    must_ask = options.always_confirm or preview.replaces_anything(tasks)
    if must_ask and not options.confirm(preview.describe(tasks)):
        raise BytebackError("nothing was restored")


def _foreseen(found: Found, tasks: Sequence[Task]) -> Restored:
    changes: dict[str, Change] = {}
    for task in tasks:
        above = [] if task.job.with_parents else bring.foresee_parents(task)
        for change in (*above, *(task.outlook.changes if task.outlook else ())):
            changes.setdefault(str(task.batch.directory / change.name), change)
    seen = [task.outlook for task in tasks if task.outlook is not None]
    return Restored(
        found,
        tuple(changes.values()),
        tuple(change for one in seen for change in one.kept),
        sum(len(one.newer) for one in seen),
        tuple(sentence for task in tasks for sentence in bring.cannot_come(task)),
        tuple(dict.fromkeys(line for one in seen for line in one.problems)),
    )


def _bring_all(
    found: Found, tasks: Sequence[Task], options: RestoreOptions
) -> Restored:
    results = []
    for task in tasks:
        directory = task.batch.directory
        layout = options.layout
        bring.make_directory(
            directory, is_live=layout.is_live, is_private=layout.is_private
        )
        results.append(bring.bring(task, options.on_progress))
    _report(found, sum(result.kept for result in results))
    if not preview.changes_anything(tasks) and not any(r.missing for r in results):
        logger.info("nothing to restore: all of it is there as it is in the backup")
    return Restored(
        found,
        missing=tuple(line for result in results for line in result.missing),
        problems=tuple(dict.fromkeys(p for one in results for p in one.problems)),
    )


def _without_root(
    connection: Connection, found: Found, layout: Layout
) -> tuple[Entry, ...]:
    """The entries; where files are live, what is in the root instead of the root.

    Else the root's owner, mode and times would be given to a directory of the user's,
    or to one that is to stay private.
    """
    if not layout.is_private and (not layout.is_live or layout.by_snapshot):
        return found.entries
    entries = [entry for entry in found.entries if entry.path != "/"]
    for root in found.entries:
        if root.path == "/":
            query = Query(BELOW_ROOT, root.snapshot)
            entries += find.ask(connection, query, BELOW_ROOT).entries
    return tuple(entries)


def _report(found: Found, kept: int) -> None:
    if kept:
        files = format_count(kept, "file")
        logger.info("%s newer than in the backup: kept", files)
    user = os.geteuid()
    if user != 0 and any(entry.uid != user for entry in found.entries):
        logger.warning(
            "owners could not be restored: that takes root; the files are yours now"
        )
