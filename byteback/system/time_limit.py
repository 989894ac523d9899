"""Looks at files that may never answer: each look is a process of its own.

A stat(2) of a mount point whose server is silent does not return, and no signal ends
it before the server is back. So a child asks; one that does not answer is left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from byteback.system import process, signals

REAP_S = 0.5  # for a child that was killed; one that hangs cannot die


class Silent:
    """The answer of a child that did not answer in time, or at all."""


SILENT: Final = Silent()


class Failed(NamedTuple):
    """A look that the system refused: an errno, or None for another failure."""

    number: int | None

    @property
    def reason(self) -> str:
        """The errno in words."""
        return "it failed" if self.number is None else os.strerror(self.number)


Answer = object  # what the function returned, Failed or SILENT


def ask(
    questions: Sequence[Callable[[], object]], limit_s: float
) -> list[object | Failed | Silent]:
    """Call all functions at the same time; return their results, as JSON holds them.

    Raises OSError if no more processes can be made.
    """
    waiting: dict[int, tuple[int, int]] = {}  # by descriptor: position and process
    answers: list[object | Failed | Silent] = [SILENT] * len(questions)
    deadline = time.monotonic() + limit_s
    with signals.block_signals():
        try:
            for position, question in enumerate(questions):
                fd, child = _start(question)
                waiting[fd] = position, child
            with signals.allow_signals():
                _collect(waiting, answers, deadline)
        finally:
            for fd in waiting:
                os.close(fd)
            _leave([child for _, child in waiting.values()])
    return answers


def _start(question: Callable[[], object]) -> tuple[int, int]:
    dying = process.dying_with_parent()
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            dying()
            _answer(question, theirs)
        finally:
            os._exit(0)
    os.close(theirs)
    return ours, child


def _answer(question: Callable[[], object], fd: int) -> None:
    """In the child: everything of the parent's is let go of, for it may hang for ever.

    Locks among it, and the pipe of a mail that cron writes.
    """
    for number in signals.SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    os.dup2(fd, 3)
    os.closerange(4, os.sysconf("SC_OPEN_MAX"))
    try:
        told: dict[str, object] = {"returned": question()}
    except OSError as error:
        told = {"errno": error.errno}
    except Exception:  # noqa: BLE001 # the parent tells it as a failure
        told = {"errno": None}
    data = json.dumps(told).encode("ascii")
    while data:
        data = data[os.write(3, data) :]


def _collect(
    waiting: dict[int, tuple[int, int]],
    answers: list[object | Failed | Silent],
    deadline: float,
) -> None:
    heard: dict[int, bytes] = dict.fromkeys(waiting, b"")
    poll = select.poll()
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    while heard:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return
        for fd, _ in poll.poll(left_s * 1000):
            chunk = os.read(fd, 65536)
            heard[fd] += chunk
            if not chunk:
                poll.unregister(fd)
                answers[waiting[fd][0]] = _read(heard.pop(fd))


def _read(data: bytes) -> object | Failed | Silent:
    try:
        told = json.loads(data)
    except ValueError:
        return SILENT
    return told["returned"] if "returned" in told else Failed(told["errno"])


def _leave(children: list[int]) -> None:
    """Wait for children that have answered, and kill those that have not."""
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    deadline = time.monotonic() + REAP_S
    for child in children:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(child, os.WNOHANG) == (0, 0):
                if time.monotonic() > deadline:
                    break
                time.sleep(process.POLL_S / 10)
