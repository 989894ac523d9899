"""The record of a change of one client that is under way (D51).

Root writes it before the first step, outside of the store, where the store's user can
only read it: what it says is done with root's rights. After a crash the next run of
byteback-clients, or root's next pruning, goes on. Until then the client is told to come
again later, and its name is given to no other one.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from byteback.errors import BusyError, quote
from byteback.model.hostname import is_host_name, is_same_host
from byteback.server.store import presence
from byteback.system.btrfs.identity import identify

PATH = presence.PATH.with_name("client-change")
MAX_BYTES = 4000
REMOVE, RENAME = "remove", "rename"


class Change(NamedTuple):
    """What is being done to which client."""

    action: str
    client: str
    new: str  # the client's new name; empty for none
    directory: int  # the inode number of the client's directory; 0 for none
    keep_others: bool  # leave what is no snapshot of the server's
    store: str  # the file system and the subvolume that it is about


def store_name(root: Path) -> str:
    """What tells the store at ``root`` from another one in its place."""
    found = identify(root)
    return "" if found is None else f"{found.filesystem}/{found.subvolume}"


def read() -> Change | None:
    """The change that is under way; None if there is none."""
    try:
        with PATH.open(encoding="ascii") as file:
            text = file.read(MAX_BYTES)
    except (OSError, UnicodeDecodeError):
        return None
    import json

    with contextlib.suppress(ValueError, TypeError):
        found = Change(**json.loads(text))
        if is_host_name(found.client) and (not found.new or is_host_name(found.new)):
            return found
    return None


def write(change: Change) -> None:
    """Record ``change``; the caller has root within reach. Raises OSError."""
    import json

    from byteback.system import files, privilege

    gid = os.getegid()
    with privilege.raised():
        PATH.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        text = json.dumps(change._asdict())
        # For byteback-receive to read: names of clients are not for other users. The
        # group is right from the start, for a crash may come right after.
        os.setegid(gid)
        try:
            files.write_atomically(PATH, text.encode("ascii"), mode=0o640)
        finally:
            os.setegid(0)


def clear() -> None:
    """Forget the change, for it is done. Raises OSError."""
    from byteback.system import files, privilege

    with privilege.raised():
        PATH.unlink(missing_ok=True)
        files.sync_directory(PATH.parent)


def check(client: str) -> None:
    """Raise BusyError if ``client`` is being changed, or is what a client becomes."""
    found = read()
    if found is None:
        return
    if is_same_host(client, found.client) or is_same_host(client, found.new):
        raise BusyError(
            f"the server's administrator is changing the client {quote(client)}",
            hint="try again in ten minutes",
        )
