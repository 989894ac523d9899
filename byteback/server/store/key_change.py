"""Ends what connections of a client may do that began before its key changed (D48).

sshd looks at authorized_keys once for each connection, and serves any number of
sessions on it later. So who held a key, and keeps a connection open, would still be let
in under the old name after the key was taken away, and after the name was given to
another machine.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import NamedTuple

from byteback.errors import BusyError
from byteback.server.store.layout import Store
from byteback.server.store.state import BOOT_ID

MAX_BYTES = 200
MAX_ANCESTORS = 8  # sshd starts a shell, which may start others before us
PROC = Path("/proc")


class _Process(NamedTuple):
    name: str
    parent: int
    uid: int
    began_s: float  # since the machine's start


def note(store: Store, client: str) -> None:
    """Refuse sessions of ``client`` on all connections that there are now.

    Raises BytebackError.
    """
    from byteback import locking
    from byteback.system import files

    place = path(store, client)
    text = f"{_boot()} {time.clock_gettime(time.CLOCK_BOOTTIME):.2f}\n"
    with locking.map_os_errors(place):
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write_atomically(place, text.encode("ascii"), mode=0o600)


def check(store: Store, client: str) -> None:
    """Raise BusyError if this session's connection is older than the last change.

    Where the kernel shows no process of sshd's (hidepid of proc(5)), or another program
    serves ssh, nothing can be said, and the session goes on.
    """
    changed = _read(path(store, client))
    if changed is None:
        return
    began = connection_began()
    if began is not None and began <= changed:
        raise BusyError(
            "the key or the name of this client was changed on the server since this "
            "connection began",
            hint="connect again",
        )


def path(store: Store, client: str) -> Path:
    """Where the last change is noted."""
    return store.lock_path(client).with_suffix(".rekeyed")


def connection_began() -> float | None:
    """When the ssh connection of this session began, in seconds since the start.

    The process that sshd gives to the client's user is made after the login. The one
    above it is root's, is there for this connection alone, and looked at the key.
    """
    pid = os.getppid()
    for _ in range(MAX_ANCESTORS):
        found = _look(pid)
        if found is None:
            return None
        if found.name.startswith("sshd"):
            above = _look(found.parent) if found.uid != 0 else None
            return found.began_s if above is None else above.began_s
        pid = found.parent
    return None


def _read(place: Path) -> float | None:
    """When the key changed; None if that was before the machine's last start."""
    with contextlib.suppress(OSError, ValueError):
        from byteback.system import files

        boot, changed = files.read_regular(place, MAX_BYTES).decode("ascii").split()
        return float(changed) if boot == _boot() else None
    return None


def _look(pid: int) -> _Process | None:
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
        text = (PROC / str(pid) / "status").read_text("utf-8", "replace")
        fields = dict(
            line.split(":\t", 1) for line in text.splitlines() if ":\t" in line
        )
        rest = (PROC / str(pid) / "stat").read_text("utf-8", "replace").rpartition(")")
        ticks = int(rest[2].split()[19])  # the 22nd of proc_pid_stat(5)
        return _Process(
            fields["Name"],
            int(fields["PPid"]),
            int(fields["Uid"].split()[0]),
            ticks / os.sysconf("SC_CLK_TCK"),
        )
    return None


def _boot() -> str:
    return BOOT_ID.read_text(encoding="ascii").strip()
