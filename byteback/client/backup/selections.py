"""Remembers what backups were made of: which sources, and what was left out.

A snapshot does not tell whether a file is missing in it because it was not there or
because it was not wanted. What the command line of byteback-backup said is noted here
whenever it changes; the administrator's files of rules are taken as they are now.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from byteback.model.snapshot import CURRENT, parse_snapshot_name
from byteback.system.files import write_atomically

STATE = Path("/var/lib/byteback/selections")
MAX_NOTES = 100  # changes of a command line, not backups
MAX_SIZE = 1 << 20  # bytes


@dataclass(frozen=True)
class Selected:
    """The sources and excludes of one backup."""

    sources: tuple[str, ...]  # absolute
    excludes: tuple[str, ...] | None  # None: the automatic ones


@dataclass(frozen=True)
class Note:
    """A selection, and the first snapshot of it; None if none has been due yet."""

    selected: Selected
    since: str | None


def choose(sources: Sequence[str], excludes: Sequence[str] | None) -> Selected:
    """The selection that a command line means, wherever it was given."""
    absolute = tuple(os.path.abspath(source) for source in sources)  # noqa: PTH100 # keeps links
    return Selected(absolute, None if excludes is None else tuple(excludes))


def note(selected: Selected, snapshot: str | None, state: Path = STATE) -> None:
    """Note that a backup was made, and became ``snapshot`` if one was due.

    A failure to do so only makes later comparisons less exact, and is passed over.
    """
    before = _read(state)
    notes = add(before, selected, snapshot)
    if notes == before:
        return
    lines = [json.dumps(asdict(one)) + "\n" for one in notes]
    try:
        state.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_atomically(state, "".join(lines).encode("ascii"))
    except OSError:
        return


def add(notes: Sequence[Note], selected: Selected, snapshot: str | None) -> list[Note]:
    """The notes after one more backup, the oldest first."""
    kept = list(notes)
    if kept and kept[-1].selected == selected:
        if kept[-1].since is None:
            kept[-1] = Note(selected, snapshot)
        return kept
    kept = [one for one in kept if one.since is not None]
    return [*kept[1 - MAX_NOTES :], Note(selected, snapshot)]


def look_up(snapshot: str, state: Path = STATE) -> Selected | None:
    """The selection of a snapshot, or None if that is not known."""
    return find(_read(state), snapshot)


def find(notes: Sequence[Note], snapshot: str) -> Selected | None:
    """The last selection that was noted no later than with ``snapshot``."""
    if snapshot == CURRENT:
        return notes[-1].selected if notes else None
    time = parse_snapshot_name(snapshot)
    if time is None:
        return None
    for one in reversed(notes):
        since = parse_snapshot_name(one.since) if one.since else None
        if since is not None and since <= time:
            return one.selected
    return None


def _read(state: Path) -> list[Note]:
    try:
        with state.open("rb") as file:
            lines = file.read(MAX_SIZE).splitlines()
        return list(_parse(lines))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _parse(lines: Iterable[bytes]) -> Iterable[Note]:
    for line in lines:
        fields = json.loads(line)
        selected = fields["selected"]
        excludes = selected["excludes"]
        yield Note(
            Selected(
                tuple(str(source) for source in selected["sources"]),
                None if excludes is None else tuple(str(rule) for rule in excludes),
            ),
            fields["since"] and str(fields["since"]),
        )
