"""Remembers which machine each client is (D38).

A copy of a machine has its key, too, and would replace the files of the first one in
``current`` by its own. A client names itself by a digest of its machine-id. Nothing
here protects from an enemy, who may name any machine.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable
from pathlib import Path

from byteback import log
from byteback.errors import RefusedError
from byteback.server.store import shortage
from byteback.server.store.layout import Store
from byteback.system import files
from byteback.wire.failures import Reason

REMEMBERED_S = 8 * 86400.0  # how long a machine that was refused counts as being there

MAX_BYTES = 200
OTHER = ".other-machine"
_NAME = re.compile(r"[0-9a-f]{32}", re.ASCII)


def check(store: Store, client: str, machine: str | None) -> None:
    """Raise RefusedError if the client is known to be another machine than this one.

    A client that does not say which one it is is not compared.
    """
    known = _read(_own(store, client))
    if machine is None or known in (None, machine):
        return
    with contextlib.suppress(OSError):
        files.write_atomically(
            _other(store, client), f"{machine}\n".encode(), mode=0o600
        )
    raise RefusedError(
        "this machine's key was last used by another machine",
        hint="byteback-setup-client says here that this is the same machine, installed "
        "again, or the one that takes its place; a copy of a machine gets a name and "
        "a key of its own by byteback-setup-client --hostname NAME",
        reason=Reason.OTHER_MACHINE,
    )


def remember(store: Store, client: str, machine: str | None) -> None:
    """Remember the first machine that says which one it is; a failure is logged."""
    if machine is None or _read(_own(store, client)) is not None:
        return
    try:
        _write(store, client, machine)
    except OSError as error:
        log.audit("WARNING", host=client, what="which machine", reason=error)


def known(store: Store, client: str) -> str | None:
    """The name of the machine that the client is, if it has said so."""
    return _read(_own(store, client))


def claim(store: Store, client: str, machine: str) -> bool:
    """The client is this machine from now on. Returns whether it was another one.

    Raises BusyError on a full disc.
    """
    known = _read(_own(store, client))
    try:
        _write(store, client, machine)
        _other(store, client).unlink(missing_ok=True)
    except OSError as error:
        what = f"the server cannot remember this machine: {error.strerror}"
        raise shortage.failure(what, error) from None
    return known not in (None, machine)


def counts(store: Store, clients: Iterable[str]) -> dict[str, int]:
    """How many machines use each client's key, as far as is known, if not one."""
    found = {}
    for client in store.noted(clients, OTHER):
        with contextlib.suppress(OSError):
            refused = _other(store, client).stat().st_mtime
            if time.time() - refused < REMEMBERED_S:
                found[client] = 2
    return found


def _read(path: Path) -> str | None:
    """The machine that a file names; None for a damaged one, as if there were none."""
    with contextlib.suppress(OSError, ValueError):
        name = files.read_regular(path, MAX_BYTES).decode("ascii").strip()
        return name if _NAME.fullmatch(name) else None
    return None


def _write(store: Store, client: str, machine: str) -> None:
    # A client that was only set up has made no lock yet.
    _own(store, client).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.write_atomically(_own(store, client), f"{machine}\n".encode(), mode=0o600)


def _own(store: Store, client: str) -> Path:
    return store.lock_path(client).with_suffix(".machine")


def _other(store: Store, client: str) -> Path:
    return store.lock_path(client).with_suffix(OTHER)
