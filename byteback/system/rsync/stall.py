"""Tells an rsync that has come to a standstill from one that is slow.

rsync's --timeout does not: while its processes wait for each other they send empty
messages, of four bytes each, which count as traffic. So the kernel's own counters of
the processes decide: bytes read and written, disc blocks, and processor time.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

from byteback.system import watching

# Whatever is at work takes more than this in all the time that it is given; two
# processes that do nothing but keep their connection alive take some 16 bytes for each
# half of a --timeout, and no processor time that could be counted.
LEAST_BYTES = 1000
LEAST_PROCESSOR_S = 0.1
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class Work(NamedTuple):
    """The work that the processes of one rsync have done so far."""

    transferred: int  # bytes that went through read(2), write(2) and their kin
    blocks: int  # bytes that a disc had to deliver or take
    ticks: int  # of processor time


class Watch:
    """Asked again and again, tells when an rsync has done nothing for too long.

    Only time in which it was asked counts: not while this program itself is stopped, or
    waits for its terminal, for then rsync may be waiting for it.
    """

    def __init__(self, pid: int, patience_s: float, *, tick_s: float) -> None:
        self._pid = pid
        self._patience_s = patience_s
        self._longest_s = 2 * tick_s
        self._idle_s = 0.0
        self._asked = time.monotonic()
        self._last = work_of(pid)
        self.has_stalled = False

    def is_stalled(self) -> bool:
        """True if nothing has happened for all the time that it may take."""
        now = time.monotonic()
        self._idle_s += min(now - self._asked, self._longest_s)
        self._asked = now
        work = work_of(self._pid)
        if self._last is None or work is None or _is_progress(self._last, work):
            self._last, self._idle_s = work, 0.0
        self.has_stalled = self._idle_s >= self._patience_s
        return self.has_stalled


def work_of(pid: int) -> Work | None:
    """The work of ``pid`` and its children that run the same program, as a sum.

    ssh is another one: its packets come whatever becomes of rsync. None if the kernel
    does not tell.
    """
    program = _program(pid)
    same = [
        pid,
        *(child for child in watching.children(pid) if _program(child) == program),
    ]
    found = [work for work in map(_own_work, same) if work is not None]
    if program is None or not found:
        return None
    return Work(*(sum(numbers) for numbers in zip(*found, strict=True)))


def _is_progress(before: Work, now: Work) -> bool:
    # Less than before: a child that had done more has ended.
    return (
        abs(now.transferred - before.transferred) >= LEAST_BYTES
        or now.blocks != before.blocks
        or abs(now.ticks - before.ticks) >= LEAST_PROCESSOR_S * _TICKS_A_SECOND
    )


def _own_work(pid: int) -> Work | None:
    try:
        text = Path(f"/proc/{pid}/io").read_text(encoding="ascii")
        counters = {name: int(value) for name, value in _pairs(text)}
        # Behind the name, which may hold spaces and parentheses (proc(5)).
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        fields = status.rpartition(")")[2].split()
        return Work(
            counters["rchar"] + counters["wchar"],
            counters["read_bytes"] + counters["write_bytes"],
            int(fields[11]) + int(fields[12]),
        )
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _pairs(text: str) -> list[list[str]]:
    return [line.split(": ") for line in text.splitlines()]


def _program(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace")
    except OSError:
        return None
