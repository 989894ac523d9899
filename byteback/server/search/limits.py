"""Ends a search that finds too much, takes too long, or has lost its client."""

from __future__ import annotations

import math
import resource
import select
import time

from byteback.errors import RefusedError
from byteback.model.glob.pattern import NARROW

LOOK_S = 0.5  # from one look at the other end to the next
_STDOUT = 1


class Limits:
    """When a search is given up: after so many results and seconds from now.

    The standard output is watched: a client that hangs up ends the search.
    """

    def __init__(
        self, results: int, seconds: float, *, is_watched: bool = True
    ) -> None:
        self.results = results
        self.deadline = time.monotonic() + seconds
        self.next_look = 0.0 if is_watched else math.inf

    def step(self) -> None:
        """To be called for each name that is looked at.

        Raises RefusedError when time is up, BrokenPipeError when the client has hung
        up.
        """
        now = time.monotonic()
        if now > self.deadline:
            raise RefusedError("the search took too long", hint=NARROW)
        if now > self.next_look:
            self.next_look = now + LOOK_S
            if not _is_heard():
                raise BrokenPipeError

    def count_result(self) -> None:
        """Count one entry; raises RefusedError when there are too many."""
        self.results -= 1
        if self.results < 0:
            raise RefusedError("the patterns match too many files", hint=NARROW)


def _is_heard() -> bool:
    """True if the session's other end still is there to take an answer."""
    waiting = select.poll()
    waiting.register(_STDOUT, 0)
    return not waiting.poll(0)


def allow_open_files() -> None:
    """Open as many files as the system lets us: a directory of each snapshot."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
