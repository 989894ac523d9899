"""Reads off a tree when its files were changed, for a run that is not root's.

No program can set a ctime, so that what backups changed can be told from each other.
But a file counts whole where a part of it was changed, and not at all where a later
backup changed it again: root has something better (baseline.py).
"""

from __future__ import annotations

import bisect
import contextlib
import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path

from byteback.model.growth import SNAPSHOT_NAME_S, Step, Taken
from byteback.server.accounting import bounded_walk

NAME_BYTES = 1024  # what a name takes of metadata, with its attributes, at most


def measure(
    current: Path, snapshots: Sequence[float], timeout_s: float
) -> tuple[list[Step], Taken]:
    """The changes between snapshots, the newest first, and those since the last.

    ``snapshots`` are their times, oldest first. What is not reached in time is left
    out.
    """
    ends = [moment + SNAPSHOT_NAME_S for moment in snapshots]
    sizes, names = [0] * (len(ends) + 1), [0] * (len(ends) + 1)
    deadline = time.monotonic() + timeout_s
    with contextlib.suppress(bounded_walk.CutOffError):
        for found in bounded_walk.walk(os.fspath(current), deadline, _status):
            place = bisect.bisect_left(ends, found.st_ctime)
            names[place] += 1
            if stat.S_ISREG(found.st_mode):
                sizes[place] += found.st_blocks * 512 // max(1, found.st_nlink)
    taken = [
        Taken(size, count * NAME_BYTES)
        for size, count in zip(sizes, names, strict=True)
    ]
    steps = [
        Step(ends[place] - ends[place - 1], taken[place])
        for place in range(len(ends) - 1, 0, -1)
    ]
    return steps, taken[-1]


def _status(entry: os.DirEntry[str]) -> os.stat_result:
    return entry.stat(follow_symlinks=False)
