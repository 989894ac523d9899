"""Root's record of sealed snapshots whose client was renamed (D58).

A sealed snapshot names its client in an attribute, which btrfs lets root change only
while the snapshot can be written to. So it keeps the old name, and this record, outside
of the store, says which client it belongs to now, by the uuid of the snapshot.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Collection

from byteback.model.hostname import is_host_name
from byteback.server.store import presence
from byteback.system import files, privilege
from byteback.system.btrfs import subvolume

PATH = presence.PATH.with_name("renamed.json")
MAX_BYTES = 1 << 26


def resolve(fd: int, claim: str) -> str:
    """The HOST/NAME of the sealed snapshot ``fd``, whose attribute is ``claim``.

    A copy that an administrator made of one belongs to the same client.
    """
    record = read()
    found = subvolume.read(fd) if record else None
    if found is None:
        return claim
    client = record.get(found.uuid.hex()) or record.get(found.parent_uuid.hex())
    return claim if client is None else f"{client}/{claim.partition('/')[2]}"


def read() -> dict[str, str]:
    """The clients of renamed snapshots, by the snapshots' uuids.

    For root, and for the store's user, who can read the record and not change it.
    """
    try:
        status = PATH.stat()
    except OSError:
        return {}
    return _read(status.st_ino, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=1)
def _read(*_state: int) -> dict[str, str]:
    """The record, read once for each state of the file."""
    found: object = {}
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads(files.read_regular(PATH, MAX_BYTES))
    if not isinstance(found, dict):
        return {}
    return {str(uuid): name for uuid, name in found.items() if is_host_name(str(name))}


def note(client: str, uuids: Collection[str], former: str) -> None:
    """Record that the snapshots ``uuids`` of ``former`` are ``client``'s now.

    What else is recorded as ``former``'s is gone. Raises OSError.
    """
    kept = {uuid: name for uuid, name in read().items() if name != former}
    _write(kept | dict.fromkeys(uuids, client))


def forget(client: str) -> None:
    """Forget the snapshots of a client that is removed. Raises OSError."""
    _write({uuid: name for uuid, name in read().items() if name != client})


def _write(record: dict[str, str]) -> None:
    if record == read():
        return
    gid = os.getegid()
    with privilege.raised():
        PATH.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        text = json.dumps(record, indent=0)
        # As client-change: names of clients are not for all users of this machine.
        os.setegid(gid)
        try:
            files.write_atomically(PATH, text.encode("ascii"), mode=0o640)
        finally:
            os.setegid(0)
