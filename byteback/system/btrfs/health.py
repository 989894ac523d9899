"""The health of a btrfs: its devices' error counters, and its last scrub."""

from __future__ import annotations

import contextlib
import re
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from byteback.errors import ToolError
from byteback.system import privilege, process
from byteback.system.btrfs.identity import identify

TIMEOUT_S = 30.0

SYSFS = Path("/sys/fs/btrfs")

_COUNTER = re.compile(r"^\[(.*)\]\.(\w+)_errs\s+([0-9]+)$", re.MULTILINE)
_UNIT = {
    "write_io": "write errors",
    "read_io": "read errors",
    "flush_io": "flush errors",
    "corruption": "corrupt blocks",
    "generation": "outdated blocks",
}
_IO = re.compile(r"^(write|read|flush)_errs\b")  # as sysfs has it: without "io"
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
    them (btrfs-device(8), stats). That program serves root alone; the kernel shows the
    counters to every user (Linux 5.14), but not which device has which number.
    """
    with contextlib.suppress(ToolError), privilege.raised():
        shown = process.run(["btrfs", "device", "stats", path], timeout_s=TIMEOUT_S)
        return parse_device_errors(shown.text)
    with contextlib.suppress(OSError):
        return parse_device_errors(_read_counters(path))
    return ()


def _read_counters(path: Path) -> str:
    """The kernel's counters, as btrfs-progs print them. Raises OSError."""
    found = identify(path)
    if found is None:
        return ""
    place = SYSFS / found.filesystem
    names = sorted(device.name for device in (place / "devices").iterdir())
    text = ""
    for directory in sorted((place / "devinfo").iterdir()):
        name = f"/dev/{names[0]}" if len(names) == 1 else f"device {directory.name}"
        for line in (directory / "error_stats").read_text("ascii").splitlines():
            counter = _IO.sub(r"\1_io_errs", line.strip())
            text += f"[{name}].{counter}\n"
    return text


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
