"""rsync's words about single files: the lines of a dry run, and what it keeps."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from byteback.model.rsync_names import plain_name

# What a dry run prints: how, size, time, name, and behind two slashes, which no name
# has within it, what a link points to (rsync(1), and rsyncd.conf(5), log format).
FORMAT = "%i %l %M %n//%L"
# Times are printed in the zone of the environment.
ENVIRONMENT = {"TZ": "UTC0"}

_CHANGE = re.compile(
    r"(?:\*(\w+)|([<>ch.])([fdLDS])(\S{9}| {9})) +"
    r"(\d{1,20}) (\S{1,40}) (.+?)//(/?)(.*)",
    re.ASCII | re.DOTALL,
)
_TIME = re.compile(r"(\d{4})/(\d\d)/(\d\d)-(\d\d):(\d\d):(\d\d)", re.ASCII)
_HARD_LINK = " => "
_KEPT = re.compile(r"(.+) is newer")


@dataclass(frozen=True)
class Change:
    """One line of a dry run."""

    # "create", "replace", "adjust" (owner, mode, times) or "delete" (with --delete)
    action: str
    path: str  # below the destination; a directory's ends in a slash
    size: int = 0  # bytes of the file in the backup
    is_only_time_of_directory: bool = False
    file_type: str = "f"  # in the backup: f, d, L (link), D (device), S (fifo, socket)
    mtime_s: int | None = None  # in the backup; None for what no calendar holds
    # There is nothing of this type and name now.
    is_new: bool = False
    # The file of which it has to become another name.
    leader: str | None = None

    @property
    def name(self) -> str:
        """The path without a slash at its end; ``.`` for the destination itself."""
        return self.path.rstrip("/")

    @property
    def is_directory(self) -> bool:
        """True if it is one in the backup."""
        return self.file_type == "d"

    @property
    def is_merged(self) -> bool:
        """True if it is a directory now as well."""
        return self.is_directory and not self.is_new


@dataclass
class RsyncOutput:
    """rsync's words about single files."""

    kept: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    directory: Path | None = None  # where to, to tell what is in the way there

    def take(self, line: str) -> None:
        """Read one line of rsync's standard output."""
        change = parse_change(line)
        if change is not None:
            self.changes.append(self._as_it_is(change))
        elif kept := _KEPT.fullmatch(line):
            self.kept.append(plain_name(kept[1]))

    def count(self) -> tuple[int, int]:
        """The number of lines that were heard, for forget."""
        return len(self.kept), len(self.changes)

    def forget(self, kept: int, changes: int) -> None:
        """Forget what came after that: it will be said again."""
        del self.kept[kept:]
        del self.changes[changes:]

    def _as_it_is(self, change: Change) -> Change:
        """rsync takes for new what is of another kind than what has the name now."""
        if self.directory is None or not change.is_new:
            return change
        is_there = os.path.lexists(self.directory / change.name)
        return replace(change, action="replace") if is_there else change


def parse_change(line: str) -> Change | None:
    """Read a line of a dry run in FORMAT; None for any other."""
    match = _CHANGE.fullmatch(line)
    if match is None:
        return None
    message, kind, file_type, attributes, size, time, name, slash, target = (
        match.groups()
    )
    path = plain_name(name + slash)
    if message is not None:
        return Change("delete", path) if message == "deleting" else None
    is_new = set(attributes) == {"+"}
    is_the_same = kind == "." or attributes.isspace()  # but for being a hard link
    action = "create" if is_new else "adjust" if is_the_same else "replace"
    leader = None
    if kind == "h" and target.startswith(_HARD_LINK):
        leader = plain_name(target.removeprefix(_HARD_LINK)) or None
    is_only_time = file_type == "d" and set(attributes) <= {".", "t"}
    return Change(
        *(action, path, int(size), is_only_time, file_type),
        mtime_s=_parse_time(time),
        is_new=is_new,
        leader=leader,
    )


def _parse_time(text: str) -> int | None:
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    try:
        year, month, day, hour, minute, second = map(int, match.groups())
        time = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        return int(time.timestamp())
    except (ValueError, OverflowError):
        return None
