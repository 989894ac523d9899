"""The health of a btrfs: its devices' error counters, and its last scrub."""

from __future__ import annotations

import contextlib
import re
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from byteback.errors import ToolError
from byteback.system import privilege, process

TIMEOUT_S = 30.0

_COUNTER = re.compile(r"^\[(.*)\]\.(\w+)_errs\s+([0-9]+)$", re.MULTILINE)
_UNIT = {
    "write_io": "write errors",
    "read_io": "read errors",
    "flush_io": "flush errors",
    "corruption": "corrupt blocks",
    "generation": "outdated blocks",
}
_STARTED = re.compile(r"^Scrub (?:started|resumed):\s+(.+)$", re.MULTILINE)
_DURATION = re.compile(r"^Duration:\s+([0-9]+):([0-9]{2}):([0-9]{2})$", re.MULTILINE)
_ERRORS = re.compile(r"^Error summary:\s+(.+)$", re.MULTILINE)
_NUMBER = re.compile(r"=([0-9]+)")


class Scrub(NamedTuple):
    """The last scrub that came to its end."""

    finished: float  # seconds since 1970
    errors: int


def device_errors(path: Path) -> tuple[str, ...]:
    """Lines like ``/dev/sdb: 3 write errors``; none for healthy devices.

    Empty too where btrfs cannot tell. The counters stay until an administrator resets
    them (btrfs-device(8), stats).
    """
    with contextlib.suppress(ToolError), privilege.raised():
        shown = process.run(["btrfs", "device", "stats", path], timeout_s=TIMEOUT_S)
        return parse_device_errors(shown.text)
    return ()


def parse_device_errors(text: str) -> tuple[str, ...]:
    """The counters above zero in what ``btrfs device stats`` prints."""
    return tuple(
        f"{device}: {number} {_UNIT.get(kind, kind)}"
        for device, kind, number in _COUNTER.findall(text)
        if int(number)
    )


def last_scrub(path: Path) -> Scrub | None:
    """The last finished scrub; None if there was none, or for a caller without root.

    btrfs-progs keep what they know of it in /var/lib/btrfs, which is root's.
    """
    with contextlib.suppress(ToolError), privilege.raised():
        shown = process.run(["btrfs", "scrub", "status", path], timeout_s=TIMEOUT_S)
        return parse_scrub(shown.text)
    return None


def is_scrub_running(path: Path) -> bool:
    """A scrub reads the file system now, started by any program."""
    with contextlib.suppress(ToolError), privilege.raised():
        shown = process.run(["btrfs", "scrub", "status", path], timeout_s=TIMEOUT_S)
        return re.search(r"^Status:\s+running$", shown.text, re.MULTILINE) is not None
    return False


def parse_scrub(text: str) -> Scrub | None:
    """Read what ``btrfs scrub status`` prints of a finished scrub, in the C locale."""
    started, duration = _STARTED.search(text), _DURATION.search(text)
    errors = _ERRORS.search(text)
    if started is None or duration is None or "finished" not in text:
        return None
    try:
        begin = datetime.strptime(started[1].strip(), "%a %b %d %H:%M:%S %Y")  # noqa: DTZ007 # local time, as printed
    except ValueError:
        return None
    hours, minutes, seconds = map(int, duration.groups())
    found = sum(map(int, _NUMBER.findall(errors[1]))) if errors is not None else 0
    took_s = hours * 3600 + minutes * 60 + seconds
    return Scrub(begin.astimezone().timestamp() + took_s, found)
