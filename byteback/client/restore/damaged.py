"""Restores around files of which the backup's note of owner and mode is damaged.

The server's rsync ends where it meets such a note (D36), whatever else it is asked for,
and rules do not keep it from looking. A snapshot cannot be mended. So the directories
that lead to the file are replaced by all else that is in them, and the file is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from byteback.client.restore import query
from byteback.client.restore.query import Query
from byteback.client.transport.connection import Connection
from byteback.errors import ToolError
from byteback.model.glob.pattern import escape_name
from byteback.model.listing import Entry
from byteback.model.rsync_names import plain_name
from byteback.system.confinement import bubblewrap
from byteback.system.mounts import is_below
from byteback.system.rsync.command import Outcome

MOST = 20  # files; each one costs a transfer that fails
# get_stat_xattr in rsync's xattrs.c. The name is the last thing in quotes but one.
_MESSAGE = re.compile(r'Corrupt user\.rsync\.%stat xattr attached to "(.+?)": ".*')


class DamagedNoteError(ToolError):
    """The server's rsync met a file whose note of owner and mode it cannot read."""

    def __init__(self, snapshot: str, path: str, outcome: Outcome) -> None:
        super().__init__(
            "the transfer met a file whose owner and mode are damaged in the backup",
            hint="restore what is beside it, by names of its own",
            details=outcome.stderr_tail,
            status=outcome.status,
        )
        self.snapshot = snapshot
        self.path = path  # on the client, absolute


def check(outcome: Outcome, snapshot: str) -> None:
    """Raise DamagedNoteError if that is what ended a transfer from ``snapshot``."""
    for line in (*outcome.remote_messages, *outcome.stderr_tail):
        match = _MESSAGE.match(line)
        if match is not None:
            path = _on_client(plain_name(match[1]), snapshot)
            raise DamagedNoteError(snapshot, path, outcome)


def _on_client(path: str, snapshot: str) -> str:
    """The client's own path of a file; rsync knows that of the tree on the server.

    In a name space of bubblewrap the tree has a place that is the same on all servers.
    """
    place = f"{bubblewrap.TREE}/"
    if path.startswith(place):
        return f"/{path.removeprefix(place)}"
    _, found, below = path.partition(f"/{snapshot}/")
    return f"/{below}" if found else path


def left_out(
    connection: Connection, entries: Iterable[Entry], error: DamagedNoteError
) -> list[Entry]:
    """``entries`` without the damaged file. Raises ``error`` if it is in none of them.

    That is so where it is a directory that leads to them, or the top of the tree.
    """
    found: list[Entry] = []
    is_met = False
    for entry in entries:
        if entry.snapshot == error.snapshot and is_below(error.path, entry.path):
            is_met = True
            found += _beside(connection, entry, error.path)
        else:
            found.append(entry)
    if not is_met or error.path == "/":
        raise error
    return found


def _beside(connection: Connection, entry: Entry, path: str) -> Iterator[Entry]:
    """All that is in the directories from ``entry`` down to ``path``, without that."""
    while entry.path != path:
        above: Entry | None = None
        for one in _children(connection, entry):
            if is_below(path, one.path):
                above = one
            else:
                yield one
        if above is None:
            return
        entry = above


def _children(connection: Connection, directory: Entry) -> Sequence[Entry]:
    top = escape_name(directory.path).rstrip("/")
    patterns = [f"{top}/*", f"{top}/.*"]
    asked = Query(patterns, directory.snapshot)
    return query.ask(connection, asked, patterns).entries
