"""True if what is to be restored fits on the disc."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from byteback.client.restore import response
from byteback.client.restore.bring import Task
from byteback.client.restore.plan import Batch
from byteback.client.transport.connection import Connection
from byteback.errors import BytebackError, quote
from byteback.model.glob.pattern import escape_name
from byteback.model.listing import Entry
from byteback.model.size import format_size
from byteback.wire import requests

logger = logging.getLogger(__name__)


def measure(connection: Connection, batch: Batch) -> int:
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


def check(tasks: Sequence[Task], sizes: Sequence[int], *, insist: bool) -> None:
    """Raise BytebackError if the disc is too small for what will be restored.

    Where something is there already, only what comes on top of it counts. Holes of
    files are not known beforehand and count as well: so with ``insist`` there is only
    a warning.
    """
    directory = tasks[0].batch.directory if tasks else Path("/")
    free = _free(directory)
    if free is None:
        return
    needed = sum(
        size if task.outlook is None else min(size, task.outlook.growth)
        for task, size in zip(tasks, sizes, strict=True)
    )
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
