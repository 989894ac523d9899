"""Lines from a program that is started by others and told a path to write them to."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

MAX_LINE = 1 << 16  # bytes; a longer one is taken in parts
END_S = 30.0  # for what is in the fifo when all writers are gone


@contextlib.contextmanager
def listening(path: Path, take: Callable[[bytes], None]) -> Iterator[None]:
    """Make the fifo ``path``, and have ``take`` called with each line written to it.

    At the end of the block all lines have been taken, if no process holds it open any
    more, and the fifo is gone. ``take`` is called in another thread; what it raises is
    raised at the end of the block, and the writers are not held up by it.
    Raises OSError, TimeoutError if a process does hold it open.
    """
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    try:
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        # Without a writer of our own it would be at its end before it has begun.
        writer = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        os.set_blocking(reader, True)
        listener = _Listener(reader, take)
        listener.start()
        try:
            yield
        finally:
            os.close(writer)
            listener.join(END_S)
    finally:
        path.unlink(missing_ok=True)
    if listener.is_alive():
        raise TimeoutError("a process holds the fifo open")
    if listener.error is not None:
        raise listener.error


class _Listener(threading.Thread):
    def __init__(self, fd: int, take: Callable[[bytes], None]) -> None:
        super().__init__(daemon=True)
        self._fd = fd
        self._take = take
        self.error: Exception | None = None

    def run(self) -> None:
        with os.fdopen(self._fd, "rb") as stream:
            while line := stream.readline(MAX_LINE):
                if self.error is None:
                    try:
                        self._take(line)
                    except Exception as error:  # noqa: BLE001 # raised at the end
                        self.error = error
