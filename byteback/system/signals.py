"""Signals that end a program: one exception, and never in the middle of cleaning up.

The first of SIGINT, SIGTERM and SIGHUP raises; those that follow only wait, so that a
second Ctrl-C cannot keep a program from being stopped or a lock from being dropped.
All that goes on after the first is bounded in time, or asks for more by ``reopened``.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from byteback.errors import InterruptedBySignalError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _State:
    def __init__(self) -> None:
        self.holds = 0  # how many blocks keep signals back
        self.pending: int | None = None
        self.is_ending = False  # the first signal has been raised

    def raise_now(self, number: int) -> None:
        self.is_ending = True
        self.pending = None
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise InterruptedBySignalError(number)

    def raise_pending(self) -> None:
        if self.pending is not None and not (self.holds or self.is_ending):
            self.raise_now(self.pending)


_state = _State()


def install() -> None:
    """Let the signals raise; one that the caller ignores (nohup) stays ignored."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, on_signal)


def on_signal(number: int, _frame: FrameType | None) -> None:
    """A signal handler: KeyboardInterrupt for SIGINT, else InterruptedBySignalError."""
    if _state.holds or _state.is_ending:
        _state.pending = number
        return
    _state.raise_now(number)


@contextlib.contextmanager
def block_signals() -> Iterator[None]:
    """Keep signals back until the block has ended: it must be short.

    A program that was started and not yet noted down would be left running otherwise.
    """
    _state.holds += 1
    try:
        yield
    finally:
        _state.holds -= 1
        _state.raise_pending()


@contextlib.contextmanager
def allow_signals() -> Iterator[None]:
    """Inside ``held``: let signals raise again, for the long wait in its middle."""
    holds, _state.holds = _state.holds, 0
    try:
        _state.raise_pending()
        yield
    finally:
        _state.holds = holds


@contextlib.contextmanager
def defer_signals() -> Iterator[None]:
    """Keep signals back until the block has ended, and whatever programs it runs.

    For what has to be written down even if the process is to end, as if the first
    signal had come before it: see above for how long that may take.
    """
    was_ending, _state.is_ending = _state.is_ending, True
    try:
        yield
    finally:
        _state.is_ending = was_ending
        _state.raise_pending()


@contextlib.contextmanager
def rearm_signals() -> Iterator[None]:
    """Let a further signal raise, after the first one too."""
    was_ending, _state.is_ending = _state.is_ending, False
    _state.pending = None
    try:
        yield
    finally:
        _state.is_ending = _state.is_ending or was_ending
