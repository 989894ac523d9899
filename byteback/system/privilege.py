"""Root's rights put down, and taken up again for the few steps that need them.

The store belongs to an unprivileged user. If that user was taken over, whatever root
does by a path in the store could be led elsewhere by a link; done with that user's own
rights it can reach nothing that was not his already.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from byteback.errors import BytebackError, NotRootError

_PR_SET_DUMPABLE = 4


def require_root(message: str) -> None:
    """Raise NotRootError with ``message`` for all other users."""
    if os.geteuid() != 0:
        raise NotRootError(message)


def is_root_within_reach() -> bool:
    """True if this process is root, or was before ``lowered_to``."""
    return 0 in os.getresuid()


@contextlib.contextmanager
def lowered_to(uid: int, gid: int) -> Iterator[None]:
    """As root, be that user for the length of the block; nothing for other users.

    Programs that are started inside are that user for good: only the saved user
    number remains root's, and that does not outlive an exec. Raises BytebackError
    where root lacks the capability.
    """
    if os.geteuid() != 0 or uid == 0:
        yield
        return
    groups = os.getgroups()
    try:
        _lower(uid, gid)
    except PermissionError:
        raise BytebackError(
            "root may not act as the store's user here",
            hint="in a service, CapabilityBoundingSet= needs CAP_SETUID and CAP_SETGID",
        ) from None
    try:
        yield
    finally:
        _raise(groups)


def show_own_counters() -> None:
    """Let this process read its own /proc again after it has put root down for good.

    The kernel makes /proc/self root's then (PR_SET_DUMPABLE of prctl(2)). Nothing that
    only root may know is to be in its memory, for the user can read that from here on.
    """
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Be root again for the length of the block, where root is within reach."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0 or not is_root_within_reach():
        yield
        return
    _raise([])
    try:
        yield
    finally:
        _lower(uid, gid)


def _lower(uid: int, gid: int) -> None:
    os.setgroups([gid])
    os.setresgid(gid, gid, 0)
    os.setresuid(uid, uid, 0)


def _raise(groups: list[int]) -> None:
    os.setresuid(0, 0, 0)
    os.setresgid(0, 0, 0)
    os.setgroups(groups)
