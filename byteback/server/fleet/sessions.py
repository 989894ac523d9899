"""The sessions of one client: ended, or kept out for as long as something is changed.

Each session holds one of its client's places (server/limits.py). Who holds them all is
alone with what is the client's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from byteback.server.store.layout import Store, lock_name
from byteback.system import open_files, privilege

END_WAIT_S = 20.0
KILL_WAIT_S = 5.0
POLL_S = 0.05


def end(store: Store, host: str) -> int:
    """End the client's sessions, and the transfers in them; how many there were."""
    count = _signal(store, host, signal.SIGTERM)
    if count and not _wait(store, host, END_WAIT_S):
        _signal(store, host, signal.SIGKILL)
        _wait(store, host, KILL_WAIT_S)
    return count


def places(store: Store, host: str) -> list[Path]:
    """The lock files of a client's sessions and searches that there are."""
    name = lock_name(host)
    directory = store.state / "sessions"
    # No host's name has a plus, and each place has a number of one digit.
    patterns = (f"{name}.[0-9].lock", f"{name}+search.[0-9].lock")
    return [path for pattern in patterns for path in directory.glob(pattern)]


def _holders(store: Store, host: str) -> list[int]:
    found = set()
    for path in places(store, host):
        with contextlib.suppress(OSError):
            found.add(open_files.number_of(path))
    if not found:
        return []
    with privilege.raised():
        return [int(process.name) for process in open_files.holders(found)]


def _signal(store: Store, host: str, number: signal.Signals) -> int:
    pids = _holders(store, host)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
    return len(pids)


def _wait(store: Store, host: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while _holders(store, host):
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True
