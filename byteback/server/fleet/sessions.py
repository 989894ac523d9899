"""The sessions of one client: ended, or kept out for as long as something is changed.

Each session holds one of its client's places (server/limits.py). Who holds them all is
alone with what is the client's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from byteback import locking
from byteback.errors import SHORTAGES, LockedError, quote
from byteback.server import limits
from byteback.server.store import holders, reserve
from byteback.server.store.layout import Store
from byteback.system.btrfs import commands

ALONE_WAIT_S = 3.0


def end(store: Store, client: str) -> int:
    """End the client's sessions, and the transfers in them; how many there were."""
    return holders.end(limits.place_paths(store, client))


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
