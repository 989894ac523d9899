"""Listings: entries, the copies of a path that count, tables, JSON lines."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from byteback.errors import RefusedError, escape
from byteback.model.snapshot import CURRENT, is_misdated, parse_snapshot_name

HEADER = ("snapshot", "modestring", "size", "uid", "gid", "mtime", "path")
# Before the path, so that all other columns stand where they stand in every listing.
HEADER_WITH_FIRST_SEEN = (*HEADER[:-1], "since", HEADER[-1])
GAP = "  "
_NANOSECOND = 10**9
_EPOCH = datetime.fromtimestamp(0, UTC)
# What stat(2) can tell: a hostile server's numbers are not always such.
_MAX_32 = 2**32
_MAX_64 = 2**63
_NUMBERS = {
    "mode": (0, _MAX_32),
    "size": (0, _MAX_64),
    "uid": (0, _MAX_32),
    "gid": (0, _MAX_32),
    "mtime_ns": (-_MAX_64 * _NANOSECOND, _MAX_64 * _NANOSECOND),
}


class Entry(NamedTuple):
    """One copy of one path, as it was on the client."""

    snapshot: str
    path: str  # absolute; bytes that are no UTF-8 are surrogates
    mode: int  # the whole of st_mode, type included
    size: int
    uid: int
    gid: int
    mtime_ns: int
    target: str | None = None  # of a symbolic link
    device: tuple[int, int] | None = None  # major and minor of a device
    # The oldest snapshot that holds the same version, where versions were asked for.
    first_seen: str | None = None

    @property
    def is_directory(self) -> bool:
        """True if restoring it means restoring what is in it, too."""
        return stat.S_ISDIR(self.mode)


def rank_trees(
    names: Iterable[str], *, current_is_whole: bool, now: datetime | None = None
) -> list[str]:
    """A client's trees, newest first.

    ``current`` and foreign names count as now, ``current`` before the others. If the
    last transfer into ``current`` never finished, the newest snapshot comes before
    all of these, because its files are known to be complete. With ``now``, snapshots
    that a wrong clock dated into the future come last.
    """
    dated: list[tuple[bool, datetime, str]] = []
    undated = []
    for name in names:
        time = parse_snapshot_name(name)
        if time is None:
            undated.append(name)
        else:
            in_order = now is None or not is_misdated(time, now)
            dated.append((in_order, time, name))
    snapshots = [name for *_, name in sorted(dated, reverse=True)]
    undated.sort(key=lambda name: (name != CURRENT, name))
    if current_is_whole:
        return undated + snapshots
    return snapshots[:1] + undated + snapshots[1:]


class Table:
    """A table whose first lines can be shown before its last are known.

    Columns are as wide as the lines need that ``start`` knows of; a wider cell that
    comes later widens its column from there on. ``human`` writes sizes with units,
    ``first_seen`` adds the snapshot in which each version appeared. Names are escaped:
    they can hold what drives a terminal.
    """

    def __init__(self, *, human: bool = False, first_seen: bool = False) -> None:
        self._human, self._first_seen = human, first_seen
        self._header = HEADER_WITH_FIRST_SEEN if first_seen else HEADER
        self._widths = [len(cell) for cell in self._header[:-1]]
        self._is_started = False
        self._waiting: list[Sequence[str]] = []

    @property
    def waiting(self) -> int:
        """The number of lines that wait for the start."""
        return len(self._waiting)

    def add(self, entries: Iterable[Entry]) -> list[str]:
        """The lines of ``entries``; none before the start, for which they wait."""
        rows = [
            _format_row(entry, human=self._human, first_seen=self._first_seen)
            for entry in entries
        ]
        # The path comes last and needs no width.
        for row in rows:
            self._widths = [
                max(width, len(cell))
                for width, cell in zip(self._widths, row, strict=False)
            ]
        if not self._is_started:
            self._waiting += rows
            return []
        return [_align(row, self._widths) for row in rows]

    def start(self) -> list[str]:
        """The header, one dashed line, and the lines that wait; once."""
        if self._is_started:
            return []
        self._is_started = True
        rows = [self._header, *self._waiting]
        longest = max(len(row[-1]) for row in rows)
        gaps = len(GAP) * len(self._widths)
        header, *lines = [_align(row, self._widths) for row in rows]
        self._waiting.clear()
        return [header, "-" * (sum(self._widths) + gaps + longest), *lines]


def format_table(
    entries: Sequence[Entry], *, human: bool = False, first_seen: bool = False
) -> Iterator[str]:
    """The lines of a whole Table: the header, one dashed line, one for each entry."""
    table = Table(human=human, first_seen=first_seen)
    yield from table.add(entries)
    yield from table.start()


def format_json(entry: Entry) -> str:
    """One line of JSON in plain ASCII, without the newline.

    A byte of a name that is no UTF-8 is written as the escape of a lone surrogate,
    ``\\udcXX``, as Python's surrogateescape has it.
    """
    import json

    fields: dict[str, Any] = {
        "snapshot": entry.snapshot,
        "path": entry.path,
        "mode": entry.mode,
        "size": entry.size,
        "uid": entry.uid,
        "gid": entry.gid,
        "mtime_ns": entry.mtime_ns,
        "target": entry.target,
        "device": entry.device,
    }
    if entry.first_seen is not None:
        fields["first_seen"] = entry.first_seen
    return json.dumps(fields)


def parse_entry(fields: object) -> Entry:
    """The Entry that a decoded line of format_json holds; unknown keys are ignored.

    Raises RefusedError if it is none, or if its path could lead anywhere but below
    the root: a server may be hostile, too.
    """
    if not isinstance(fields, dict):
        raise _not_understood()
    snapshot, path = fields.get("snapshot"), fields.get("path")
    target, first_seen = fields.get("target"), fields.get("first_seen")
    numbers = [fields.get(name) for name in _NUMBERS]
    if not (
        isinstance(snapshot, str)
        and isinstance(path, str)
        and _is_plain_path(path)
        and all(map(_is_within, numbers, _NUMBERS.values()))
        and (target is None or isinstance(target, str))
        and (first_seen is None or isinstance(first_seen, str))
    ):
        raise _not_understood()
    mode, size, uid, gid, mtime_ns = (int(number or 0) for number in numbers)
    return Entry(
        snapshot,
        path,
        mode,
        size,
        uid,
        gid,
        mtime_ns,
        target,
        _parse_device(fields.get("device")),
        first_seen,
    )


def format_mtime(mtime_ns: int) -> str:
    """``YYYY-mm-dd HH:MM:SS +zzzz`` in the zone of this machine."""
    try:
        time = (_EPOCH + timedelta(seconds=mtime_ns // _NANOSECOND)).astimezone()
    except (OverflowError, ValueError):  # a time that no calendar holds
        return f"@{mtime_ns // _NANOSECOND}"
    return f"{time:%Y-%m-%d %H:%M:%S %z}"


def format_human_size(size: int) -> str:
    """A size as ``ls -h`` writes it: ``512``, ``1.5K``, ``20M``."""
    value, unit = float(size), ""
    for larger in "KMGTPE":
        if value < 1023.5:
            break
        value, unit = value / 1024, larger
    return f"{value:.1f}{unit}" if unit and value < 9.95 else f"{value:.0f}{unit}"


def _format_row(entry: Entry, *, human: bool, first_seen: bool) -> tuple[str, ...]:
    size = format_human_size(entry.size) if human else str(entry.size)
    if entry.device is not None:
        size = f"{entry.device[0]},{entry.device[1]}"
    path = escape(entry.path)
    if entry.target is not None:
        path += f" -> {escape(entry.target)}"
    columns = (
        escape(entry.snapshot),
        stat.filemode(entry.mode),
        size,
        str(entry.uid),
        str(entry.gid),
        format_mtime(entry.mtime_ns),
    )
    if first_seen:
        return (*columns, escape(entry.first_seen or entry.snapshot), path)
    return (*columns, path)


def _align(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
    return GAP.join([*cells, row[-1]])


def _is_plain_path(path: str) -> bool:
    if path == "/":
        return True
    parts = path.split("/")
    try:
        path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return False
    return parts[0] == "" and not {"", ".", ".."} & set(parts[1:]) and "\0" not in path


def _is_within(number: object, limits: tuple[int, int]) -> bool:
    low, high = limits
    return type(number) is int and low <= number < high


def _parse_device(value: object) -> tuple[int, int] | None:
    if value is None:
        return None
    if not (
        isinstance(value, list)
        and len(value) == 2
        and all(_is_within(number, (0, _MAX_32)) for number in value)
    ):
        raise _not_understood()
    return value[0], value[1]


def _not_understood() -> RefusedError:
    return RefusedError(
        "the server's listing cannot be read",
        hint="upgrade the byteback package on both sides to the same version",
    )
