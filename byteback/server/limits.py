"""Limits of one session: a place among its client's, time, memory, and sight.

A client may open sessions faster than they end, never close its standard input, or
ask for more names than memory holds. None of that may keep others from their backups.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from byteback.errors import (
    BusyError,
    PolicyError,
    RefusedError,
    quote,
)
from byteback.server.store import places
from byteback.server.store.layout import Store, lock_name
from byteback.server.store.settings import ServerSettings

MAX_SESSIONS = 10  # at once for each client: as many as one ssh connection may carry
MAX_SEARCHES = 3  # of them
SEARCH_NICENESS = 10
SESSION_SECONDS = 600.0  # for all but transfers, which rsync's own time-out ends
LAST_SECONDS = 10.0  # after that, for the refusal to reach the client
SEARCH_MEMORY = 1 << 30  # bytes of address space
RETRY_S = 60
BY_ROOT = "root"  # in place of a client's address: root on this machine


def place_paths(store: Store, client: str) -> list[Path]:
    """The lock files of all places for sessions and searches of a client."""
    prefixes = (
        (f"{lock_name(client)}.", MAX_SESSIONS),
        (_search(client), MAX_SEARCHES),
        (_root(client), MAX_SESSIONS),
    )
    return [
        path
        for prefix, count in prefixes
        for path in places.paths(_places(store), prefix, count)
    ]


@contextlib.contextmanager
def place(store: Store, client: str) -> Iterator[None]:
    """One of the client's places for sessions; BusyError when all are taken.

    On a full disc sessions go uncounted: ``--complete`` and pruning must go on there.
    """
    words = f"{quote(client)} has {MAX_SESSIONS} sessions open here already"
    with places.take(
        _places(store), f"{lock_name(client)}.", MAX_SESSIONS, words, RETRY_S
    ):
        yield


@contextlib.contextmanager
def root_place(store: Store, client: str) -> Iterator[None]:
    """One of root's own places: a client that has taken all of its own is not waited
    for when root reads its backups.
    """
    words = f"root has {MAX_SESSIONS} sessions for {quote(client)} open here already"
    with places.take(_places(store), _root(client), MAX_SESSIONS, words, RETRY_S):
        yield


@contextlib.contextmanager
def search_place(store: Store, client: str, address: str = "") -> Iterator[None]:
    """One of the client's places for searches, which take memory and time.

    Root's searches need none.
    """
    if address == BY_ROOT:
        yield
        return
    words = f"{quote(client)} has {MAX_SEARCHES} searches open here already"
    with places.take(_places(store), _search(client), MAX_SEARCHES, words, RETRY_S):
        yield


def _search(client: str) -> str:
    # No host's name has a plus: "a.search" may be one beside "a".
    return f"{lock_name(client)}+search."


def _root(client: str) -> str:
    return f"{lock_name(client)}+root."


def _places(store: Store) -> Path:
    return store.state / "sessions"


@contextlib.contextmanager
def time_limit(seconds: float = SESSION_SECONDS) -> Iterator[None]:
    """Raise RefusedError in the block when the time is up, whatever it waits for.

    A client that then does not even take the refusal loses its session without one.
    """
    is_up = False

    def end(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_up
        if is_up:
            os._exit(BusyError.exit_status)
        is_up = True
        raise RefusedError(
            f"the session took longer than {seconds:g} seconds",
            hint="ask for less at once",
        )

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds, LAST_SECONDS)
    try:
        yield
    finally:
        if not is_up:  # else the second signal is still to come, should it be needed
            signal.setitimer(signal.ITIMER_REAL, 0)


def check_can_confine_search(settings: ServerSettings) -> None:
    """Raise PolicyError where the policy requires what this kernel does not have."""
    from byteback.system.confinement import landlock

    if settings.confinement == "require" and not landlock.is_available():
        raise PolicyError(
            "this server cannot confine a search, and its policy requires it",
            hint="its administrator finds out why with byteback-setup-server",
        )


def confine_search(directory: Path, settings: ServerSettings) -> None:
    """Let this process read ``directory`` and no file of another client, for good.

    To be called before the client's patterns are looked at. Raises PolicyError as
    check_can_confine_search does.
    """
    resource.setrlimit(resource.RLIMIT_AS, (SEARCH_MEMORY, SEARCH_MEMORY))
    os.nice(SEARCH_NICENESS)
    if settings.confinement == "off":
        return
    check_can_confine_search(settings)
    import syslog

    from byteback.system.confinement import restrict_self
    from byteback.system.rsync import fake_super

    fake_super.load()
    # The socket is opened while that can be done: the log gets its line at the end.
    syslog.openlog("byteback-receive", syslog.LOG_PID | syslog.LOG_NDELAY)
    restrict_self.restrict_self([directory])
