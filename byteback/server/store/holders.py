"""Ends the sessions that hold certain places (places.py)."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection
from pathlib import Path

from byteback.system import open_files, privilege

END_WAIT_S = 20.0
KILL_WAIT_S = 5.0
POLL_S = 0.05


def end(paths: Collection[Path]) -> int:
    """End all that hold one of the locks at ``paths``; how many processes there were.

    A session ends its transfer when it is told to end.
    """
    count = _signal(paths, signal.SIGTERM)
    if count and not _wait(paths, END_WAIT_S):
        _signal(paths, signal.SIGKILL)
        _wait(paths, KILL_WAIT_S)
    return count


def _holders(paths: Collection[Path]) -> list[int]:
    found = set()
    for path in paths:
        with contextlib.suppress(OSError):
            found.add(open_files.number_of(path))
    if not found:
        return []
    with privilege.raised():
        return [int(process.name) for process in open_files.holders(found)]


def _signal(paths: Collection[Path], number: signal.Signals) -> int:
    pids = _holders(paths)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
    return len(pids)


def _wait(paths: Collection[Path], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while _holders(paths):
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True
