"""Watches a running program from outside: its end, and what it writes."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

POLL_S = 0.2  # where the kernel has no pidfd (before Linux 5.3)


def has_ended(pid: int, timeout_s: float) -> bool:
    """True if our child ``pid`` ends within the time; it remains to be waited for."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return _has_ended_by_polling(pid, timeout_s)
    try:
        watched = select.poll()
        watched.register(fd, select.POLLIN)
        return bool(watched.poll(timeout_s * 1000))
    finally:
        os.close(fd)


def bytes_written(pid: int) -> int | None:
    """The bytes that ``pid`` and all its descendants have written to discs until now.

    Counted by the kernel where pages become dirty, before any compression. Ended
    children count from when they were waited for. None if it cannot be told.
    """
    found: int | None = None
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        written = _own_bytes(one)
        if written is not None:
            found = written + (found or 0)
        waiting += children(one)
    return found


def _own_bytes(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/io").read_text(encoding="ascii")
        counters = dict(line.split(": ") for line in text.splitlines())
        # What was deleted before it reached the disc has taken no room.
        cancelled = int(counters["cancelled_write_bytes"])
        return max(0, int(counters["write_bytes"]) - cancelled)
    except (OSError, ValueError, KeyError):
        return None


def children(pid: int) -> list[int]:
    """The processes that ``pid`` has started and not waited for; none if it is gone."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(word) for word in text.split()]


def _has_ended_by_polling(pid: int, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if info is not None:
            return True
        time.sleep(POLL_S)
    return False
