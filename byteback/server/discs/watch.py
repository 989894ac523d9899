"""Carries out what takes hours: shows how far it is, and never stops it.

btrfs's program has a session of its own, so that neither Ctrl-C nor a closed terminal
ends it. The kernel keeps the state, which a later run of the same command finds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from byteback.errors import ToolError
from byteback.system import files, process, signals
from byteback.system.btrfs import devices
from byteback.system.rsync.command import Progress

logger = logging.getLogger(__name__)

POLL_S = 0.5
STEP_PERCENT = 10  # between two lines of the log
MAX_OUTPUT = 1 << 16


@dataclass(frozen=True)
class Watcher:
    """The administrator who may be watching."""

    on_progress: Callable[[Progress], None] | None = None  # None: not on a terminal
    tell: Callable[[str], None] = logger.warning  # when the watching is cut off


@dataclass(frozen=True)
class Work:
    """A long operation of btrfs's."""

    point: Path
    kind: str  # as the kernel names it
    size: int  # bytes that it is about
    percent: Callable[[], float]  # how much of it is done
    told: str  # for an administrator who stops watching


def run(work: Work, argv: Sequence[str], watcher: Watcher) -> None:
    """Start it and wait for its end. Raises ToolError if it failed."""
    with files.in_memory() as said:
        # A signal that comes while it is started is heard when it is watched.
        with signals.block_signals():
            running = process.start(
                argv, stdout=said.fileno(), stderr=said.fileno(), new_session=True
            )
            _watch(work, lambda: running.poll() is None, watcher)
        said.seek(0)
        details = process.last_lines(said.read(MAX_OUTPUT))
    if running.returncode != 0:
        raise ToolError(
            f"btrfs could not finish '{work.kind}'",
            hint="what was moved by then stays where it is, and nothing is lost; the "
            "kernel's log (dmesg) may say more",
            details=details,
            status=running.returncode,
        )


def join(work: Work, watcher: Watcher) -> None:
    """Wait for the end of one that runs already."""
    with signals.block_signals():
        _watch(
            work,
            lambda: devices.exclusive_operation(work.point) == work.kind,
            watcher,
        )


def _watch(work: Work, goes_on: Callable[[], bool], watcher: Watcher) -> None:
    shown = _Shown(work, watcher)
    try:
        with signals.allow_signals():
            while goes_on():
                shown.show()
                time.sleep(POLL_S)
    except BaseException:
        watcher.tell(work.told)
        raise


class _Shown:
    """Shows progress on a terminal, or a line in the log now and then."""

    def __init__(self, work: Work, watcher: Watcher) -> None:
        self.work = work
        self.on_progress = watcher.on_progress
        self.started = time.monotonic()
        self.first: float | None = None
        self.logged = 0

    def show(self) -> None:
        """Look how far it is, and tell."""
        try:
            percent = min(100.0, max(0.0, self.work.percent()))
        except (OSError, ToolError):
            return
        if self.first is None:
            self.first = percent
        if self.on_progress is not None:
            self.on_progress(self._progress(percent))
        elif percent >= self.logged + STEP_PERCENT:
            self.logged = int(percent) // STEP_PERCENT * STEP_PERCENT
            logger.info("%s: %d percent", self.work.kind, self.logged)

    def _progress(self, percent: float) -> Progress:
        done = int(self.work.size * percent / 100)
        seconds = max(1.0, time.monotonic() - self.started)
        moved = max(0.0, percent - (self.first or 0.0)) / seconds  # percent a second
        left = int((100 - percent) / moved) if moved else 0
        rate = self.work.size * moved / 100
        eta = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}" if moved else "?"
        return Progress(done, int(percent), f"{rate / 1e6:.2f}MB/s", eta)
