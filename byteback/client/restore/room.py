"""Whether what is to be restored fits, and what would be replaced: told beforehand."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from byteback.client.restore import pull, response
from byteback.client.restore.plan import Batch
from byteback.client.restore.pull import Pull
from byteback.client.transport.connection import Connection
from byteback.errors import BytebackError, quote
from byteback.model.glob.pattern import escape_name
from byteback.model.listing import Entry
from byteback.model.size import format_size
from byteback.wire import requests

logger = logging.getLogger(__name__)

BLOCK = 512  # bytes; the unit of st_blocks


@dataclass(frozen=True)
class Preview:
    """What one transfer would do."""

    replaced: tuple[str, ...]  # paths of files whose contents it would replace
    growth: int  # bytes by which the disc would fill


def preview(job: Pull, batch: Batch) -> Preview:
    """Ask rsync, which changes nothing. Raises as run_pull."""
    heard = pull.Heard(directory=job.directory)
    pull.run_pull(replace(job, is_dry_run=True), batch.names, heard=heard)
    replaced, growth = [], 0
    for change in heard.changes:
        path = job.directory / change.path
        if change.action in ("create", "replace"):
            growth += change.size
        if change.action == "replace":
            replaced.append(str(path))
            growth -= _size_on_disc(path)
    return Preview(tuple(replaced), growth)


def check(
    connection: Connection, work: Sequence[tuple[Pull, Batch]], *, insist: bool
) -> None:
    """Raise BytebackError if the disc is too small for what will be restored.

    Going by all sizes first, which is quick; only if that is too much, by what is not
    there already. Holes of files are not known beforehand and count as well: so with
    ``insist`` there is only a warning.
    """
    directory = work[0][0].directory if work else Path("/")
    free = _free(directory)
    if free is None:
        return
    whole = sum(_size(connection, batch) for _, batch in work)
    if whole <= free:
        return
    needed = min(whole, sum(preview(job, batch).growth for job, batch in work))
    if needed <= free:
        return
    message = (
        f"{format_size(needed)} are to be restored below {quote(str(directory))}, "
        f"and only {format_size(free)} are free there"
    )
    if not insist:
        raise BytebackError(
            message,
            hint="make room, or restore elsewhere with --to; --yes goes on all the "
            "same, if there are files with large holes",
        )
    logger.warning(message)


def _size(connection: Connection, batch: Batch) -> int:
    """Bytes that a batch takes on the disc, counting hard links each time."""
    known = sum(entry.size for entry in batch.entries if not entry.is_directory)
    directories = [entry.path for entry in batch.entries if entry.is_directory]
    if not directories:
        return known
    request = requests.Find(batch.snapshot, "size")
    patterns = [escape_name(path) for path in directories]
    listed: list[Entry] = []  # none
    end = response.receive(
        connection, request, patterns, response.parse_entry, listed.extend
    )
    return known + (end.size or 0)


def _free(directory: Path) -> int | None:
    """Bytes that this user may still write where a directory is or will be."""
    for existing in (directory, *directory.parents):
        try:
            found = os.statvfs(existing)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return found.f_bavail * found.f_frsize
    return None


def _size_on_disc(path: Path) -> int:
    try:
        return path.lstat().st_blocks * BLOCK
    except OSError:
        return 0
