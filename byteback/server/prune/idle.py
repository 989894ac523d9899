"""Ends a run of pruning at once where nothing has changed and there is room (D58).

Most runs are such. What the others need is not even imported here, which would take as
long as all the rest.
"""

from __future__ import annotations

import contextlib

from byteback import locking
from byteback.errors import LockedError
from byteback.model.free_space import FreeSpace, Limits, wants_pruning
from byteback.server.accounting import ledger
from byteback.server.fleet import ends
from byteback.server.prune.looked import Looked
from byteback.server.store import change, marks, reserve
from byteback.server.store.layout import Store
from byteback.system import privilege
from byteback.system.btrfs import commands

INVITED = b"--invited"  # in each invitation's line of authorized_keys
UNDER_WAY = "pruning"  # in the store's state: max_percent is still to be reached


def is_idle(store: Store, limits: Limits, now: float) -> bool:
    """True if a run at ``now``, in seconds since 1970, would find nothing to do.

    That is then noted as a run that came to its end. Nothing else is written.
    """
    try:
        with locking.hold_directory(store.root):
            free = commands.free_space(store.root)
            if not _has_nothing_to_do(store, free, limits, now):
                return False
    except (OSError, LockedError):
        return False
    note_run(store, free)
    return True


def note_run(store: Store, free: FreeSpace) -> None:
    """Leave for byteback-status that a run came to its end."""
    ledger.note_free_space(store, free.free_bytes, free.total_bytes)
    marks.note(store, marks.PRUNED)
    if privilege.is_root_within_reach():
        marks.note(store, marks.SEALED)


def is_under_way(store: Store) -> bool:
    """True if an earlier run began to delete, and max_percent is not reached yet."""
    return (store.state / UNDER_WAY).exists()


def _has_nothing_to_do(
    store: Store, free: FreeSpace, limits: Limits, now: float
) -> bool:
    return not (
        wants_pruning(free.percent, limits, under_way=is_under_way(store))
        or marks.read_fault(store) is not None
        or not reserve.is_there(store)
        or _is_anything_over(store, now)
        or not Looked(store, now).is_as_known
    )


def _is_anything_over(store: Store, now: float) -> bool:
    """True if a change of a client waits for its end, or something's time is over."""
    if privilege.is_root_within_reach():
        with privilege.raised():
            if change.read() is not None:
                return True
        if any(until <= now for until in ends.read().values()):
            return True
    return _has_ended_invitation(store)


def _has_ended_invitation(store: Store) -> bool:
    with contextlib.suppress(OSError):
        if INVITED in store.authorized_keys.read_bytes():
            from byteback.server.access import invitations

            return invitations.has_ended(store)
    return False
