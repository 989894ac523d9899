"""Goes on with a change of a client that a crash cut off."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from byteback import locking
from byteback.errors import BytebackError, LockedError
from byteback.server.fleet import removal, renaming
from byteback.server.store import change
from byteback.server.store.layout import Store
from byteback.system import privilege

logger = logging.getLogger(__name__)

LOCK_WAIT_S = 150.0  # for a run of pruning


@contextlib.contextmanager
def locked(store: Store) -> Iterator[None]:
    """Hold the store's lock, which pruning holds too, with nothing left half done.

    The caller is root, acting as the store's user. Raises LockedError if another run
    has the lock for too long, and whatever keeps an earlier change from its end.
    """
    with locking.hold_directory(store.root, wait_s=LOCK_WAIT_S):
        _finish(store)
        yield


def finish(store: Store) -> None:
    """For root's pruning runs, which hold the lock: what fails is logged."""
    if not privilege.is_root_within_reach():
        return
    try:
        _finish(store)
    except LockedError:
        return  # a session is under way
    except (OSError, BytebackError) as error:
        logger.warning("cannot go on with the change of a client: %s", error)


def _finish(store: Store) -> None:
    with privilege.raised():
        found = change.read()
    if found is None:
        return
    if found.store != change.store_name(store.root):
        logger.warning("forgot a change of %s: it is of another store", found.client)
        change.clear()
        return
    logger.warning("going on with what was cut off: %s %s", found.action, found.client)
    if found.action == change.RENAME:
        renaming.go_on(store, found)
    else:
        removal.go_on(store, found)
