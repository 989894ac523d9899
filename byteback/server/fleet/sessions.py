"""The sessions of one client: ended, or kept out for as long as something is changed.

Each session holds one of its client's places (server/limits.py). Who holds them all is
alone with what is the client's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from byteback import locking
from byteback.errors import SHORTAGES, LockedError, quote
from byteback.server import limits
from byteback.server.store import reserve
from byteback.server.store.layout import Store
from byteback.system import open_files, privilege
from byteback.system.btrfs import commands

ALONE_WAIT_S = 3.0
END_WAIT_S = 20.0
KILL_WAIT_S = 5.0
POLL_S = 0.05


def end(store: Store, client: str) -> int:
    """End the client's sessions, and the transfers in them; how many there were."""
    count = _signal(store, client, signal.SIGTERM)
    if count and not _wait(store, client, END_WAIT_S):
        _signal(store, client, signal.SIGKILL)
        _wait(store, client, KILL_WAIT_S)
    return count


@contextlib.contextmanager
def alone(store: Store, client: str) -> Iterator[None]:
    """Keep all sessions of ``client`` out, and whatever else works on its ``current``.

    A client that comes meanwhile is told that it is busy here. Raises LockedError if a
    session is under way. On a full disc the store's reserve makes room for the locks.
    """
    deadline = time.monotonic() + ALONE_WAIT_S
    paths = [*limits.place_paths(store, client), store.lock_path(client)]
    with contextlib.ExitStack() as stack:
        for path in paths:
            wait_s = max(0.0, deadline - time.monotonic())
            try:
                stack.enter_context(_hold(store, path, wait_s))
            except LockedError as error:
                raise under_way(client, error) from None
        yield


def under_way(client: str, error: LockedError) -> LockedError:
    """The error for an administrator in whose way a session of the client is."""
    return LockedError(
        f"a session of {quote(client)} is under way: {error.message}",
        hint="wait for its end, or end it: 'byteback-clients key --revoke' does, and "
        "takes the key away",
    )


def _hold(
    store: Store, path: Path, wait_s: float
) -> contextlib.AbstractContextManager[locking.Lock]:
    lock = locking.hold(path, wait_s=wait_s)
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.touch(mode=0o600)
    except OSError as error:
        if error.errno in SHORTAGES:
            reserve.release(store)
            commands.sync(store.root)
    return lock


def _holders(store: Store, client: str) -> list[int]:
    found = set()
    for path in limits.place_paths(store, client):
        with contextlib.suppress(OSError):
            found.add(open_files.number_of(path))
    if not found:
        return []
    with privilege.raised():
        return [int(process.name) for process in open_files.holders(found)]


def _signal(store: Store, client: str, number: signal.Signals) -> int:
    pids = _holders(store, client)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
    return len(pids)


def _wait(store: Store, client: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while _holders(store, client):
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True
