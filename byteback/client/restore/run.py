"""Restores files: what byteback-restore --restore does."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from byteback.client.backup.excludes import foreign_mount_points
from byteback.client.restore import pull, room, sticky
from byteback.client.restore import query as find
from byteback.client.restore.plan import (
    Batch,
    Layout,
    directories_above,
    plan_batches,
)
from byteback.client.restore.query import Found, Query, Server
from byteback.client.settings import (
    read_compression,
    read_io_timeout,
    read_rsync_flags,
)
from byteback.client.transport import compression
from byteback.client.transport.connection import Connection
from byteback.errors import BytebackError, IncompleteRestoreError, escape, quote
from byteback.model.listing import Entry
from byteback.model.size import format_count
from byteback.system import host
from byteback.system.rsync.command import SUCCESS, Progress

logger = logging.getLogger(__name__)

DEFAULT_IO_TIMEOUT_S = 300
PROBLEMS_SHOWN = 5
CONFLICTS_SHOWN = 20
# All that lies directly in the root, hidden or not.
BELOW_ROOT = ("/*", "/.*")


@dataclass(frozen=True)
class Wish:
    """How to restore what was found."""

    layout: Layout
    is_dry_run: bool = False
    # Asked before anything is written; False ends the restore.
    confirm: Callable[[str], bool] | None = None
    on_progress: Callable[[Progress], None] | None = None
    insist: bool = False  # even if the disc seems too small


@dataclass(frozen=True)
class Restored:
    """What was done, or would be."""

    found: Found
    changes: tuple[pull.Change, ...]  # of a dry run
    kept: int  # files that stayed because they are newer than their backup
    problems: tuple[str, ...] = ()  # with single files

    def check(self) -> None:
        """Raise IncompleteRestoreError if some files could not be restored."""
        if self.problems:
            raise IncompleteRestoreError(
                f"all is done but for {format_count(len(self.problems), 'problem')}",
                hint="the same command tries the rest again",
                details=self.problems[:PROBLEMS_SHOWN],
            )


def restore_files(server: Server, query: Query, wish: Wish) -> Restored:
    """Find what matches and restore it; Restored.check tells whether that was all.

    Raises BytebackError if nothing matches, else as Connection and run_pull.
    """
    flags = read_rsync_flags(server.files)
    choice = read_compression(server.files, server.compress)
    timeout_s = read_io_timeout(server.files, server.io_timeout_s, DEFAULT_IO_TIMEOUT_S)
    with find.connected(server) as connection:
        found = find.find(connection, query)
        batches = plan_batches(
            _without_root(connection, found, wish.layout),
            wish.layout,
            current_is_whole=found.current_is_whole,
        )
        compresses = not wish.is_dry_run and compression.choose(
            connection, choice, flags
        )
        jobs = [
            pull.Pull(
                connection,
                batch.snapshot,
                batch.directory,
                timeout_s,
                flags,
                keeps_newer=wish.layout.keeps_newer,
                is_dry_run=wish.is_dry_run,
                with_parents=not wish.layout.is_live,
                compresses=compresses,
            )
            for batch in batches
        ]
        work = list(zip(jobs, batches, strict=True))
        if wish.confirm is not None and not wish.confirm(_describe(work)):
            raise BytebackError("nothing was restored")
        if not wish.is_dry_run:
            room.check(connection, work, insist=wish.insist)
        heard = pull.Heard()
        problems: list[str] = []
        for job, batch in work:
            heard.directory = batch.directory
            problems += _restore_batch(job, batch, heard, wish)
        _report(found, heard)
        changes, once = tuple(heard.changes), tuple(dict.fromkeys(problems))
        return Restored(found, changes, len(heard.kept), once)


def _without_root(
    connection: Connection, found: Found, layout: Layout
) -> tuple[Entry, ...]:
    """The entries; where files are live, what is in the root instead of the root.

    Else the root's owner, mode and times would be given to a directory of the user's.
    """
    if not layout.is_live or layout.by_snapshot:
        return found.entries
    entries = [entry for entry in found.entries if entry.path != "/"]
    for root in found.entries:
        if root.path == "/":
            query = Query(BELOW_ROOT, root.snapshot)
            entries += find.ask(connection, query, BELOW_ROOT).entries
    return tuple(entries)


def _restore_batch(
    job: pull.Pull, batch: Batch, heard: pull.Heard, wish: Wish
) -> list[str]:
    """Fetch one snapshot's part; what rsync complained about."""
    if not job.is_dry_run:
        _make_directory(batch.directory, is_live=wish.layout.is_live)
    missing = [] if job.with_parents else _missing_parents(batch)
    # Directories on the way that are missing are made first, so that what was private
    # is so from the start, and again at the end, for their times have changed since.
    problems: list[str] = []
    if missing:
        problems += pull.run_pull(job, missing, recursive=False, heard=heard).problems
    outcome = pull.run_pull(job, batch.names, on_progress=wish.on_progress, heard=heard)
    problems += outcome.problems
    if outcome.status != SUCCESS:  # not all that rsync says of a file begins alike
        problems += outcome.remarks or (() if outcome.problems else (outcome.meaning,))
    if missing and not job.is_dry_run:
        problems += pull.run_pull(job, missing, recursive=False).problems
    _complete_acls(job, batch)
    logger.info(
        "%s %s from %s below %s",
        "would restore" if job.is_dry_run else "restored",
        format_count(outcome.files_sent, "file"),
        batch.snapshot,
        quote(str(batch.directory)),
    )
    return problems


def _complete_acls(job: pull.Pull, batch: Batch) -> None:
    """Set again what rsync sets only in part; what is not in the backup is ignored."""
    if job.is_dry_run:
        return
    foreign = frozenset(foreign_mount_points(host.mounts()))
    names = sticky.find(batch.directory, batch.names, foreign)
    if names:
        pull.run_pull(job, names, recursive=False)


def _missing_parents(batch: Batch) -> list[str]:
    return [
        name
        for name in directories_above(batch.names)
        if not os.path.lexists(batch.directory / name)
    ]


def _make_directory(directory: Path, *, is_live: bool) -> None:
    """Make the directory to restore into.

    One of ours, named after a snapshot, must not be a link: in a directory that
    others can write to, they could have put it there to send us elsewhere.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        is_link = directory.is_symlink()
    except OSError as error:
        raise BytebackError(
            f"cannot make the directory {quote(str(directory))}: {error.strerror}",
            hint="choose another one with --to",
        ) from None
    if is_link and not is_live:
        raise BytebackError(
            f"{quote(str(directory))} is a symbolic link, and nothing is restored "
            "through it",
            hint="remove it, or choose another directory with --to",
        )


def _describe(work: Sequence[tuple[pull.Pull, Batch]]) -> str:
    """What will be restored, and which files it will replace."""
    lines = []
    replaced: list[str] = []
    for job, batch in work:
        what = ", ".join(escape(entry.path) for entry in batch.entries[:3])
        more = len(batch.entries) - 3
        if more > 0:
            what += f" and {more} more"
        lines.append(f"{batch.snapshot}: {what}")
        replaced += room.preview(job, batch).replaced
    lines += [f"replaces {escape(path)}" for path in replaced[:CONFLICTS_SHOWN]]
    if len(replaced) > CONFLICTS_SHOWN:
        lines.append(
            f"and replaces {len(replaced) - CONFLICTS_SHOWN} more: "
            "--dry-run lists them all"
        )
    if not replaced:
        lines.append("replaces no file that is there")
    return "\n".join(lines)


def _report(found: Found, heard: pull.Heard) -> None:
    if heard.kept:
        kept = format_count(len(heard.kept), "file")
        logger.info("%s newer than in the backup: kept", kept)
    user = os.geteuid()
    if user != 0 and any(entry.uid != user for entry in found.entries):
        logger.warning(
            "owners could not be restored: that takes root; the files are yours now"
        )
