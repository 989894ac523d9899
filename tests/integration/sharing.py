"""Several runs share the modules of one suite, each on a machine of its own.

tests/run starts one pytest for each core and gives all of them the same open file.
Whoever comes to a module first claims its byte there and runs it; for the others its
tests do not exist. Nothing is planned, so that nobody waits long for the last one.
"""

from __future__ import annotations

import fcntl
import os

import pytest

DESCRIPTOR = "BYTEBACK_TEST_CLAIMS"  # the variable that holds the file's number

# Long ones first: the run is over when the last module is.
LONG = (
    "faults/test_kill_loop",
    "pruning/",
    "test_growth",
    "faults/",
    "hostile/",
    "sealing/",
    "test_restore",
)


class Claims:
    """Which modules this run has claimed, and which it found taken."""

    def __init__(self, fd: int, modules: list[str]) -> None:
        self._fd = fd
        self._place = {module: place for place, module in enumerate(modules)}
        self._is_mine: dict[str, bool] = {}

    def is_mine(self, module: str) -> bool:
        """Whether this run is to run ``module``; claims it if nobody has yet."""
        if module not in self._is_mine:
            self._is_mine[module] = self._claim(self._place[module])
        return self._is_mine[module]

    def _claim(self, place: int) -> bool:
        # fcntl's locks are by process: these runs share one open file description.
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            if os.pread(self._fd, 1, place) == b"1":
                return False
            os.pwrite(self._fd, b"1", place)
            return True
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)


def module_of(item: pytest.Item) -> str:
    """The path of the file that a test is in."""
    return item.nodeid.partition("::")[0]


def order(module: str) -> tuple[int, str]:
    """A sort key: long modules first, else by name. The same in every run."""
    for rank, part in enumerate(LONG):
        if part in module:
            return rank, module
    return len(LONG), module


def claims_of(items: list[pytest.Item]) -> Claims | None:
    """The claims on these tests, or None where this run shares with nobody."""
    descriptor = os.environ.get(DESCRIPTOR)
    if not descriptor:
        return None
    modules = sorted({module_of(item) for item in items}, key=order)
    return Claims(int(descriptor), modules)
