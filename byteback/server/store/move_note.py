"""Which clients are on their way to another server, or there already (D60).

byteback-clients move writes the note, the new server's requests change its state, and
byteback-receive refuses by it: so that a client never backs up to two servers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from byteback.errors import BusyError, MovedError, quote
from byteback.server.store.layout import Store

ENDING = ".moving"
LOCK = "moves.lock"  # in the store's state directory; held for moments
LOCK_WAIT_S = 30.0
MAX_BYTES = 8192
# The client backs up here; it is told to come later, while the other server brings the
# last of its history; it is told where to go.
OPEN, CLOSED, MOVED = "open", "closed", "moved"


class MoveNote(NamedTuple):
    """To where a client moves, and how far that is."""

    server: str  # the name of the new server's key here
    destination: str  # of that server, for the client
    state: str = OPEN
    host_key: str = ""  # the new server's, once it has told it
    since: float = 0.0  # of this state, in seconds since 1970


# For a note that cannot be read: better no backup for a while than one at two places.
DAMAGED = MoveNote("", "", CLOSED)


def read(store: Store, client: str) -> MoveNote | None:
    """None for a client that is not moved."""
    if not (place := path(store, client)).exists():
        return None
    import json

    from byteback.system import files

    with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
        note = MoveNote(**json.loads(files.read_regular(place, MAX_BYTES)))
        if note.state in (OPEN, CLOSED, MOVED):
            return note
    return DAMAGED if place.exists() else None


def write(store: Store, client: str, note: MoveNote) -> None:
    """Raises BytebackError."""
    import json

    from byteback import locking
    from byteback.system import files

    place = path(store, client)
    with locking.map_os_errors(place):
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = json.dumps(note._asdict())
        files.write_atomically(place, f"{text}\n".encode("ascii"), mode=0o600)


@contextlib.contextmanager
def changing(store: Store) -> Iterator[None]:
    """Look at a note and change it, and no other process does meanwhile.

    Raises LockedError. No lock of the client does: a backup under way holds that.
    """
    from byteback import locking

    with locking.hold(store.state / LOCK, wait_s=LOCK_WAIT_S):
        yield


def forget(store: Store, client: str) -> None:
    """The client is one of this server's like any other again. Raises OSError."""
    path(store, client).unlink(missing_ok=True)


def moved_clients(store: Store, clients: Iterable[str]) -> frozenset[str]:
    """Those of the clients that make their backups on another server."""
    return frozenset(
        client
        for client in store.noted(clients, ENDING)
        if (note := read(store, client)) is not None and note.state == MOVED
    )


def check(store: Store, client: str) -> None:
    """Raise MovedError or BusyError for a client that makes no backups here now."""
    note = read(store, client)
    if note is None or note.state == OPEN:
        return
    if note.state == CLOSED:
        raise BusyError(
            f"{quote(client)} is being moved to another server",
            hint="try again in ten minutes",
        )
    from byteback.wire.moved import format_moved

    raise MovedError(
        f"the backups of {quote(client)} go to {note.destination} now: they were moved",
        f"byteback-setup-client --destination {note.destination}",
        format_moved(client, note.destination, note.host_key),
    )


def path(store: Store, client: str) -> Path:
    """Where that is noted."""
    return store.lock_path(client).with_suffix(ENDING)
