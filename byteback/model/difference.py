"""The difference of one path between two snapshots."""

from __future__ import annotations

import stat
from typing import NamedTuple

from byteback.errors import RefusedError
from byteback.model.listing import Entry, format_json, parse_entry

KINDS = ("new", "deleted", "changed")


class Difference(NamedTuple):
    """A path that is not the same in both."""

    kind: str  # one of KINDS
    entry: Entry  # the later copy; of what is deleted, the earlier one


def compare(newer: Entry | None, older: Entry | None) -> Difference | None:
    """The difference between two copies of one path; None if there is none.

    Contents count as the same if size and time are. A directory is only compared by
    owner and mode: its time tells of names in it, which are paths of their own.
    """
    if newer is None or older is None:
        only = newer or older
        kind = "deleted" if newer is None else "new"
        return None if only is None else Difference(kind, only)
    if _described(newer) == _described(older):
        return None
    return Difference("changed", newer)


def format_difference(difference: Difference) -> str:
    """One line of JSON: an entry's fields, and ``change``."""
    return format_json(difference.entry)[:-1] + f', "change": "{difference.kind}"}}'


def parse_difference(fields: object) -> Difference:
    """Read the decoded line; raises RefusedError as parse_entry does."""
    entry = parse_entry(fields)
    kind = fields.get("change") if isinstance(fields, dict) else None
    if kind not in KINDS:
        raise RefusedError(
            "the server does not know how to compare snapshots",
            hint="upgrade the byteback package on the server",
        )
    return Difference(kind, entry)


def _described(entry: Entry) -> tuple[object, ...]:
    owner = (entry.mode, entry.uid, entry.gid, entry.target, entry.device)
    if stat.S_ISDIR(entry.mode):
        return owner
    return (*owner, entry.size, entry.mtime_ns)
