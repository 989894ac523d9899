"""The largest file that changes on this machine, and the block size of deltas for it.

rsync chooses about the square root of a file's size, 32 KiB for one of 1 GiB, so that
each changed 4 KiB of it costs eight times that on the wire and in every snapshot.
Small blocks cost memory on both sides instead, some 40 bytes for each block of the
file that is being compared.

Only a file that was sent before can be sent as a delta, and its size was seen then.
So what earlier runs saw is enough to choose a block size, without a look at every file.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from byteback.client.backup import own_files
from byteback.client.backup.rules import Selection
from byteback.system.rsync.command import Outcome

STATE = Path("/var/lib/byteback/largest-file")
SCAN_LIMIT_S = 300.0
UNKNOWN = 1 << 62
BY_THEMSELVES = 1  # what even a first backup finds there: the top of the tree
SMALLEST = 4096  # bytes: a page, and btrfs's own unit
LARGEST = 128 * 1024  # rsync's MAX_BLOCK_SIZE since protocol 30
MAX_BLOCKS = 256 * 1024  # of one file: about 10 MiB of memory


def choose_block_size(largest_file: int) -> int | None:
    """Bytes a block for a run whose largest changing file has ``largest_file`` bytes.

    None leaves the choice to rsync: the file is so large that even the largest block
    would take more memory than it is worth.
    """
    size = SMALLEST
    while largest_file > size * MAX_BLOCKS:
        size *= 2
    return size if size <= LARGEST else None


def read_largest(state: Path = STATE) -> int | None:
    """Bytes of the largest file that a backup has sent, or None if nothing is known."""
    try:
        text = state.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return int(text) if text.isdigit() and len(text) < 20 else None


def write_largest(size: int, state: Path = STATE) -> None:
    """Remember ``size``; a failure to do so only costs speed, and is passed over."""
    unfinished = state.with_suffix(".new")
    try:
        state.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        unfinished.write_text(f"{size}\n", encoding="ascii")
        unfinished.replace(state)
    except OSError:
        return


def scan_largest(
    sources: Iterable[str],
    foreign: Collection[str],
    *,
    time_limit_s: float = SCAN_LIMIT_S,
) -> int:
    """Bytes of the largest plain file below ``sources``.

    ``foreign`` is own_files.walk's. Returns UNKNOWN, more than any file has, when the
    time limit is reached.
    """
    deadline = time.monotonic() + time_limit_s
    largest = 0
    for _, entries in own_files.walk(sources, foreign):
        if time.monotonic() > deadline:
            return UNKNOWN
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    size = entry.stat(follow_symlinks=False).st_size
                    largest = max(largest, size)
    return largest


class LargestSeen:
    """The largest size of what was sent, in lines of the format push.SENT_FORMAT."""

    def __init__(self, size: int = 0) -> None:
        self.size = size

    def take(self, line: str) -> None:
        """Read one line of rsync's standard output; other lines mean nothing here."""
        digits, _, rest = line.partition(" ")
        if rest.startswith("."):  # only its owner, mode, time and the like
            return
        if digits.isascii() and digits.isdigit() and len(digits) < 20:
            self.size = max(self.size, int(digits))


def remember_largest(
    selection: Selection, known: int | None, seen: int, outcome: Outcome
) -> None:
    """Keep the size of the largest file that the next run may send as a delta.

    Nothing is known before a first backup and after an upgrade. No file is larger than
    all that were sent; only where that does not settle it all of them are looked at.
    """
    if known is not None:
        if seen > known:
            write_largest(seen)
    elif (
        outcome.files_created >= outcome.files - BY_THEMSELVES
        and choose_block_size(outcome.size_sent) == SMALLEST
    ):
        write_largest(outcome.size_sent)
    else:
        write_largest(scan_largest(selection.sources, selection.foreign))
