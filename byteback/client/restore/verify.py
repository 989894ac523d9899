"""Proves that the backup holds what it should: a sample of it, compared in full."""

from __future__ import annotations

import logging
import os
import random
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from byteback.client.backup import mount_points
from byteback.client.backup.own_attributes import has_own
from byteback.client.backup.shortfall import HINT_ATTRIBUTES
from byteback.client.restore import outlook, pull, query, response
from byteback.client.restore.changes import RsyncOutput
from byteback.client.restore.query import Query, Server
from byteback.client.restore.run import DEFAULT_IO_TIMEOUT_S
from byteback.client.settings import read_io_timeout, read_rsync_flags
from byteback.client.transport.connection import Connection
from byteback.errors import BytebackError, IncompleteBackupError, escape, quote
from byteback.model.listing import Entry, rank_trees
from byteback.model.size import format_count
from byteback.model.snapshot import CURRENT
from byteback.system import mounts
from byteback.wire import requests

logger = logging.getLogger(__name__)

SURPLUS = 4  # paths looked up for each that is compared: not all are unchanged files
SHOWN = 5
# Whole contents are read on both sides and compared by checksum. No time is looked at,
# nor which files are one: rsync would make them so whatever is in them.
OPTIONS = ("--checksum", "--no-hard-links")


@dataclass(frozen=True)
class Verified:
    """The result in words, if all was well."""

    snapshot: str
    files: int
    size: int  # bytes


def verify(server: Server, sample: int) -> Verified:
    """Compare ``sample`` random files of this machine with the newest snapshot.

    Only files count that have not changed since, going by size and time: those must
    be the same to the byte.
    Raises BytebackError if any differs or none can be compared, IncompleteBackupError
    if any has attributes that no backup keeps, else as Connection and run_pull.
    """
    with query.connected(server) as connection:
        snapshot = newest_snapshot(connection)
        found = _within_reach(random_entries(connection, snapshot, sample))
        entries = _pick([entry for entry in found if is_unchanged(entry)], sample)
        if not entries:
            raise BytebackError(
                f"nothing could be compared with {snapshot}: none of the files that "
                "were looked at is as it was",
                hint="look with byteback-restore --diff what changed",
            )
        differing = _differing(connection, server, snapshot, entries)
    if differing:
        raise BytebackError(
            f"{len(differing)} of {len(entries)} files differ from their backup in "
            f"{snapshot}, though their size and time are the same",
            hint="a disc or memory may be failing, here or on the server; compare with "
            f"byteback-restore --restore --snapshot {snapshot}",
            details=[escape(path) for path in differing[:SHOWN]],
        )
    lacking = [entry.path for entry in entries if has_own(entry.path)]
    if lacking:
        raise IncompleteBackupError(
            f"the contents of {format_count(len(entries), 'file')} are the same in "
            f"{snapshot}, but {len(lacking)} of them have attributes that no backup "
            "keeps",
            hint=HINT_ATTRIBUTES,
            details=[escape(path) for path in lacking[:SHOWN]],
        )
    size = sum(entry.size for entry in entries)
    files = format_count(len(entries), "file")
    logger.info("%s, %d bytes: the same in %s", files, size, snapshot)
    return Verified(snapshot, len(entries), size)


def _within_reach(entries: Sequence[Entry]) -> list[Entry]:
    """Those that a look finds without a link above, or a file system that is silent.

    Both mean that what was backed up is not there any more. Tells of the latter.
    """
    table = mounts.read()
    avoided = mount_points.untouchable(table)
    found, met = [], set()
    for entry in entries:
        mount = mounts.at(entry.path, table)
        if mount is not None and mount.point in avoided:
            met.add(mount.point)
        else:
            found.append(entry)
    for point in sorted(met):
        logger.warning("not compared: files in %s (%s)", quote(point), avoided[point])
    names = [entry.path[1:] for entry in found]
    elsewhere = outlook.obstructed(Path("/"), names)
    return [entry for entry in found if entry.path[1:] not in elsewhere]


def is_unchanged(entry: Entry) -> bool:
    """True if the live file is a plain one of the backup's size and time."""
    try:
        found = os.lstat(entry.path)
    except OSError:
        return False
    return (
        stat.S_ISREG(found.st_mode)
        and stat.S_ISREG(entry.mode)
        and (found.st_size, found.st_mtime_ns) == (entry.size, entry.mtime_ns)
    )


def random_entries(connection: Connection, snapshot: str, count: int) -> list[Entry]:
    """Random files of a snapshot, more than ``count`` for what is of no use."""
    request = requests.Find(snapshot, "newest", sample=count * SURPLUS)
    found: list[Entry] = []
    response.receive(connection, request, ["/"], response.parse_entry, found.extend)
    return found


def _pick(entries: list[Entry], sample: int) -> list[Entry]:
    return random.sample(entries, min(sample, len(entries)))


def newest_snapshot(connection: Connection) -> str:
    """The newest that is finished; ``current`` alone is none."""
    roots = query.ask(connection, Query((), scope="copies"), ["/"])
    names = {entry.snapshot for entry in roots.entries} - {CURRENT}
    ranked = rank_trees(names, current_is_whole=False, now=datetime.now(UTC))
    if not ranked:
        raise BytebackError(
            f"{connection.name} has no snapshot of this machine yet",
            hint="byteback-backup makes one",
        )
    return ranked[0]


def _differing(
    connection: Connection, server: Server, snapshot: str, entries: Sequence[Entry]
) -> list[str]:
    """Those whose contents differ, and that were not written to meanwhile."""
    job = pull.Pull(
        connection,
        snapshot,
        Path("/"),
        read_io_timeout(server.files, server.io_timeout_s, DEFAULT_IO_TIMEOUT_S),
        read_rsync_flags(server.files),
        is_dry_run=True,
        with_parents=False,
        rules=OPTIONS,
        silent_bytes=sum(entry.size for entry in entries),
    )
    heard = RsyncOutput()
    by_path = {entry.path: entry for entry in entries}
    outcome = pull.run_pull(job, [path[1:] for path in by_path], heard=heard)
    if outcome.all_problems:
        raise BytebackError(
            f"some files could not be compared with {quote(snapshot)}",
            details=outcome.all_problems[:SHOWN],
        )
    changed = {
        "/" + change.path
        for change in heard.changes
        if change.action in ("replace", "create")
    }
    return sorted(
        path for path in changed & set(by_path) if is_unchanged(by_path[path])
    )
