"""Opens this machine's store for programs that look after it."""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import sys
from collections.abc import Iterator

from byteback.errors import NotRootError, StoreElsewhereError, quote
from byteback.server.store import mounting, presence
from byteback.server.store.layout import USER, Store, find_store
from byteback.system import privilege

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def quiet_elsewhere() -> Iterator[None]:
    """End quietly where the store is mounted by hand, and not here.

    For what a timer runs: of two machines that can have the store one has nothing to
    do. On a terminal a person asks, who is told.
    """
    try:
        yield
    except StoreElsewhereError as error:
        if sys.stderr.isatty():
            raise
        logger.info("nothing to do: %s", error.message)


@contextlib.contextmanager
def opened_store(*, writes: bool = False, may_mount: bool = False) -> Iterator[Store]:
    """This machine's store, for a caller who may prune it.

    Root acts as the store's user inside, but where only root can (D15). With
    ``may_mount`` root tries once to mount a store that is not there. Raises
    NotSetUpError if there is none, StoreError if it is not mounted, or read-only for a
    caller who ``writes``, NotRootError for a caller who is neither root nor its owner.
    """
    store = find_store()
    user = pwd.getpwnam(USER)
    if os.geteuid() not in {0, user.pw_uid}:
        raise NotRootError(
            f"only root and the user {quote(USER)} can look after the store"
        )
    if may_mount and os.geteuid() == 0:
        mounting.mount_if_missing(store)
        mounting.adopt(store)
    else:
        mounting.check(store)
    if writes:
        presence.check_writable(store)
    with privilege.lowered_to(user.pw_uid, user.pw_gid):
        yield store
