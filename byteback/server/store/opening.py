"""Opens this machine's store for programs that look after it."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator

from byteback.errors import NotRootError, quote
from byteback.server.store import mounting, presence
from byteback.server.store.layout import USER, Store, find_store
from byteback.system import privilege


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
