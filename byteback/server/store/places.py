"""Places of which there are only so many: for sessions, searches and transfers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from byteback import locking
from byteback.errors import BusyError, BytebackError, LockedError


def paths(directory: Path, prefix: str, count: int) -> list[Path]:
    """The locks that are ``count`` places, whether they are there yet or not."""
    return [directory / f"{prefix}{number}.lock" for number in range(count)]


@contextlib.contextmanager
def take(
    directory: Path,
    prefix: str,
    count: int,
    words: str,
    retry_s: int,
    may_go_uncounted: Callable[[], bool] = lambda: True,
) -> Iterator[None]:
    """Hold one of ``count`` places, the locks ``prefix``0.lock and further.

    Raises BusyError with ``words`` when all are taken. Where not even an empty file can
    be made, on a full disc, the block runs uncounted if it ``may_go_uncounted``; else
    the error of the lock is raised.
    """
    with contextlib.ExitStack() as stack:
        for path in paths(directory, prefix, count):
            try:
                stack.enter_context(locking.hold(path))
            except LockedError:
                continue
            except BytebackError:
                if not may_go_uncounted():
                    raise
            yield
            return
        raise BusyError(words, hint=f"try again in {retry_s} seconds")
