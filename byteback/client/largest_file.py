"""Remembers the largest file that changes on this machine, from run to run.

Only a file that was sent before can be sent as a delta, and its size was seen then.
So what earlier runs saw is enough to choose a block size, without a look at every file.
"""

from __future__ import annotations

from pathlib import Path

STATE = Path("/var/lib/byteback/largest-file")


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


class LargestSeen:
    """The largest size in the lines that rsync prints for ``--out-format='%l %n'``."""

    def __init__(self, size: int = 0) -> None:
        self.size = size

    def take(self, line: str) -> None:
        """Read one line of rsync's standard output; other lines mean nothing here."""
        digits = line.partition(" ")[0]
        if digits.isdigit():
            self.size = max(self.size, int(digits))
