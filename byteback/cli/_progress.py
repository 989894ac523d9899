"""A progress bar on the terminal, one line that is rewritten."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from types import TracebackType

from byteback.model.size import format_size
from byteback.system.rsync.command import Progress

BAR_WIDTH = 24
PAUSE_S = 0.1  # rsync reports hundreds of times a second; that is too fast to read


class ProgressLine:
    """Shows each Progress that it is called with, and clears its line at the end.

    It also clears it before each message that is logged to the terminal meanwhile.
    """

    def __init__(self) -> None:
        self._is_shown = False
        self._percent = -1
        self._drawn_at = 0.0

    @classmethod
    def for_terminal(cls) -> ProgressLine | None:
        """A progress line if standard error is a terminal that can show one."""
        return cls() if sys.stderr.isatty() else None

    def __call__(self, progress: Progress) -> None:
        """Show where the transfer is, unless that was done just now."""
        now = time.monotonic()
        is_early = now < self._drawn_at + PAUSE_S
        if self._is_shown and is_early and progress.percent == self._percent:
            return
        self._percent, self._drawn_at = progress.percent, now
        columns = shutil.get_terminal_size().columns
        sys.stderr.write(f"\r{format_progress(progress)[: columns - 1]}\x1b[K")
        sys.stderr.flush()
        self._is_shown = True

    def __enter__(self) -> ProgressLine:
        for handler in logging.getLogger("byteback").handlers:
            handler.addFilter(self._make_way)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for handler in logging.getLogger("byteback").handlers:
            handler.removeFilter(self._make_way)
        self._clear()

    def _make_way(self, _record: logging.LogRecord) -> bool:
        self._clear()
        return True

    def _clear(self) -> None:
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._is_shown = False


def format_progress(progress: Progress) -> str:
    """``[######    ]  45%  1.2 GiB  12.34MB/s  0:00:12 left``."""
    filled = BAR_WIDTH * min(progress.percent, 100) // 100
    bar = "#" * filled + " " * (BAR_WIDTH - filled)
    text = (
        f"[{bar}] {progress.percent:3d}%  {format_size(progress.transferred)}  "
        f"{progress.rate}"
    )
    # Before the first percent rsync cannot tell; at the end it says what it took.
    return f"{text}  {progress.eta} left" if 0 < progress.percent < 100 else text
