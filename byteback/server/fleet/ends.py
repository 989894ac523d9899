"""Until when the newest backup of each retired client stays, as root recorded.

A client's entry goes with the client: else whoever has the store's user could have the
next client of the name removed by it.
"""

from __future__ import annotations

import contextlib
import json

from byteback.model.hostname import is_host_name
from byteback.server.store import presence
from byteback.system import files, privilege

PATH = presence.PATH.with_name("retired.json")
MAX_BYTES = 1 << 20


def read() -> dict[str, float]:
    """The end of each retired client that has one, in seconds since 1970."""
    found: object = {}
    with contextlib.suppress(OSError, ValueError), privilege.raised():
        found = json.loads(PATH.read_bytes()[:MAX_BYTES])
    if not isinstance(found, dict):
        return {}
    return {
        client: float(until)
        for client, until in found.items()
        if is_host_name(client) and isinstance(until, int | float)
    }


def write(client: str, until: float | None) -> None:
    """Record an end, or none. Raises OSError."""
    with privilege.raised():
        known = read()
        ends = {name: end for name, end in known.items() if name != client}
        if until is not None:
            ends[client] = until
        if ends != known:
            PATH.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            text = json.dumps(ends, indent=1)
            files.write_atomically(PATH, text.encode("ascii"), mode=0o600)


def forget(client: str) -> None:
    """Record no end of a client's. Raises OSError."""
    write(client, None)


def rename(old: str, new: str) -> None:
    """Let the record follow a client's new name. Raises OSError."""
    until = read().get(old)
    if until is not None:
        write(new, until)
        forget(old)
