"""Work that an administrator does on the server by hand, as root or as byteback."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from byteback.errors import NotRootError, NotSetUpError, UsageError, quote
from byteback.server.snapshots import take
from byteback.server.store import presence, settings
from byteback.server.store.layout import USER, Store, become_store_user, find_store


def snapshot(root: Path) -> str:
    """Snapshot the client whose directory (or plain name) is ``root``; its name.

    Raises as snapshots.take_snapshot does; UsageError for a directory that is not in
    this machine's store, NotSetUpError for one that is no client, StoreError if nothing
    can be written.
    """
    store = find_store()
    become_store_user()
    if os.geteuid() != pwd.getpwnam(USER).pw_uid:
        raise NotRootError(f"only root and the user {quote(USER)} can make snapshots")
    presence.check_writable(store)
    client = _host_of(store, root)
    found = store.client_name(client)
    if found is None:
        raise NotSetUpError(
            f"{quote(client)} is no client of this store",
            hint=f"the clients are the directories of {store.root} with current inside",
        )
    return take.take_snapshot(store, found, settings.load(found))


def _host_of(store: Store, root: Path) -> str:
    if len(root.parts) == 1 and root.name == str(root):
        return root.name
    resolved = root.resolve()
    if resolved.parent != store.root.resolve():
        raise UsageError(
            f"{quote(str(root))} is not a client's directory in {store.root}",
            hint="name the client, or its directory there",
        )
    return resolved.name
