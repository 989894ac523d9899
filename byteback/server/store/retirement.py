"""Which clients are retired: their keys are known, and refused with a word about it."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from byteback.errors import RefusedError, quote
from byteback.server.store.layout import Store
from byteback.wire.failures import Reason

MAX_BYTES = 200
NEVER = "-"
NO_FILE = (errno.EINVAL, errno.ELOOP, errno.ENXIO)  # a fifo, a link, a socket
ENDING = ".retired"


class Retired(NamedTuple):
    """Since when a client is retired, and until when its newest backup stays."""

    since: float  # seconds since 1970
    until: float | None  # None: until it is removed by hand


def read(store: Store, client: str) -> Retired | None:
    """None for a client that is not retired. A damaged note is one all the same."""
    from byteback.system import files

    try:
        text = files.read_regular(path(store, client), MAX_BYTES)
    except OSError as error:
        return None if error.errno not in NO_FILE else Retired(0.0, None)
    words = text.decode("ascii", "replace").split()
    with contextlib.suppress(ValueError, IndexError):
        return Retired(float(words[0]), None if words[1] == NEVER else float(words[1]))
    return Retired(0.0, None)


def retired_clients(store: Store, clients: Iterable[str]) -> frozenset[str]:
    """Those of the clients that are retired."""
    return frozenset(
        client
        for client in store.noted(clients, ENDING)
        if read(store, client) is not None
    )


def write(store: Store, client: str, retired: Retired) -> None:
    """Note that a client is retired. Raises BytebackError."""
    from byteback import locking
    from byteback.system import files

    until = NEVER if retired.until is None else f"{retired.until:.0f}"
    place = path(store, client)
    with locking.map_os_errors(place):
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = f"{retired.since:.0f} {until}\n"
        files.write_atomically(place, text.encode("ascii"), mode=0o600)


def forget(store: Store, client: str) -> None:
    """Make it a client like any other again. Raises OSError."""
    path(store, client).unlink(missing_ok=True)


def check(store: Store, client: str) -> None:
    """Raise RefusedError for a client that is retired."""
    found = read(store, client)
    if found is not None:
        day = time.strftime("%Y-%m-%d", time.localtime(found.since))
        raise RefusedError(
            f"the client {quote(client)} was retired on this server on {day}",
            hint="its backups there are kept for a time. If this machine is to be "
            "backed up again, the server's administrator runs "
            f"'byteback-clients retire --undo {client}'; if not, remove byteback here",
            reason=Reason.RETIRED,
        )


def path(store: Store, client: str) -> Path:
    """Where that is noted."""
    return store.lock_path(client).with_suffix(ENDING)
