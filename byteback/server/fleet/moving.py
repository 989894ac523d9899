"""Moves a client to another server, as root on the one that it leaves (D60).

Here is only said that it moves, and to where; the new server does the rest, by requests
of its own (server/replicate/handing_over.py).
"""

from __future__ import annotations

import time

from byteback import log
from byteback.errors import LockedError, NotSetUpError, RefusedError, quote
from byteback.model.destination import Destination, format_destination
from byteback.model.hostname import is_same_host
from byteback.server.access import authorized_keys
from byteback.server.fleet import roster, sessions
from byteback.server.store import move_note, replica_note, retirement
from byteback.server.store.layout import USER, Store
from byteback.server.store.move_note import MoveNote
from byteback.system import host
from byteback.wire import moving


def move(
    store: Store, name: str, server: str, destination: Destination, *, dry_run: bool
) -> list[str]:
    """Let the second server ``server`` take a client over; lines about what is next.

    Clients reach that server by ``destination``. Harmless when done again. Raises
    NotSetUpError if there is no such client or server, RefusedError for a client that
    cannot move.
    """
    client = roster.client_named(store, name)
    server = _server_named(store, server)
    note = MoveNote(server, format_destination(destination), since=time.time())
    _check(store, client)
    with move_note.changing(store):
        before = move_note.read(store, client)
        if before is not None and before.state != move_note.OPEN:
            if before[:2] != note[:2]:
                raise RefusedError(
                    f"{quote(client)} is on its way to "
                    f"{before.destination or 'nowhere'} already",
                    hint=f"byteback-clients move --undo {client} lets it stay here",
                )
            return _describe(client, before)
        if dry_run:
            return [f"would let {server} take over {client}, as {note.destination}"]
        move_note.write(store, client, note)
    log.audit("MOVE", host=client, replica=server, to=note.destination)
    return _describe(client, note)


def undo(store: Store, name: str, *, dry_run: bool) -> list[str]:
    """Let a client stay here, or come back; lines about what was done.

    Raises LockedError if the new server is at work on it at this moment.
    """
    client = roster.client_named(store, name)
    note = move_note.read(store, client)
    if note is None:
        return [f"{client} is not being moved"]
    if dry_run:
        return [f"would let {client} stay here"]
    try:
        alone = store.lock_host(client, wait_s=sessions.ALONE_WAIT_S)
        with alone, move_note.changing(store):
            note = move_note.read(store, client) or note
            move_note.forget(store, client)
    except LockedError as error:
        raise sessions.under_way(client, error) from None
    log.audit("MOVE", host=client, undone=True)
    lines = [f"{client} stays here"]
    if note.state == move_note.MOVED:
        lines.append(
            f"if it has gone to {note.destination} already, it goes on there: "
            "move it back from there"
        )
    elif note.state == move_note.CLOSED:
        lines.append(
            f"if {note.server or 'the new server'} has let its key in already, it is a "
            "client there, too: revoke that key there"
        )
    return lines


def _check(store: Store, client: str) -> None:
    if replica_note.is_copy(store, client):
        raise RefusedError(
            f"{quote(client)} makes no backups here: it is a copy of another server's"
        )
    if retirement.read(store, client) is not None:
        raise RefusedError(
            f"{quote(client)} is retired, and would not hear of it",
            hint=f"byteback-clients retire --undo {client}",
        )
    lines = authorized_keys.read(store).lines_of_host(client)
    for line in lines.values():
        for name in moving.OPTIONS:
            if (value := line.option(name)) and not moving.is_option(value):
                raise RefusedError(
                    f"{name}={quote(value)} in a key's line of {quote(client)} cannot "
                    "be told to another server",
                    hint="write it in plain characters and without spaces",
                )
    if not lines:
        raise RefusedError(
            f"{quote(client)} has no key here, and would not hear of it",
            hint="set it up on the new server",
        )


def _server_named(store: Store, name: str) -> str:
    """The name of a second server as its key's line has it. Raises NotSetUpError."""
    lines = authorized_keys.read(store).key_lines().values()
    for line in lines:
        if line.replica is not None and is_same_host(line.replica, name):
            return line.replica
    raise NotSetUpError(
        f"{quote(name)} cannot fetch from this server, and so takes no client over",
        hint=f"there, as root: byteback-replicate --set-up --from {USER}@"
        f"{host.full_host_name()}: and then here what it prints",
    )


def _describe(client: str, note: MoveNote) -> list[str]:
    if note.state == move_note.MOVED:
        return [f"{client} was moved to {note.destination}, and is told so"]
    return [
        f"{client} moves to {note.destination}, when all of its history is there",
        f"on {note.server}, as root: byteback-replicate --accept {client}",
    ]
