"""Hands clients over to the second server that they are moved to (D60).

byteback-receive calls it on the first server for that one's key. Root's note says which
clients these are; about all others the second server can say nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from byteback import log
from byteback.errors import RefusedError, quote
from byteback.model.hostname import is_same_host
from byteback.model.public_key import PublicKey
from byteback.server.access import authorized_keys
from byteback.server.access.authorized_keys import KeyFile
from byteback.server.fleet import sessions
from byteback.server.store import change, machines, move_note, retirement, settings
from byteback.server.store.layout import Store
from byteback.server.store.move_note import MoveNote
from byteback.wire import moving

LOCK_WAIT_S = 30.0


def serve(
    store: Store, server: str, request: moving.ListMoves | moving.Close | moving.Taken
) -> Iterator[str]:
    """Serve a request of the second server ``server``; the lines of the answer.

    Raises RefusedError for a client that does not move there, LockedError while a
    session of it is under way.
    """
    match request:
        case moving.ListMoves():
            key_file = authorized_keys.read(store)
            for client in store.hosts():
                if retirement.read(store, client) is not None:
                    continue
                note = move_note.read(store, client)
                if note is not None and is_same_host(note.server, server):
                    yield moving.format_move(_describe(store, key_file, client, note))
        case moving.Close(client):
            _close(store, server, client)
        case moving.Taken(client, key):
            _let_go(store, server, client, key)


def _describe(
    store: Store, key_file: KeyFile, client: str, note: MoveNote
) -> moving.Move:
    lines = []
    for line in key_file.lines_of_host(client).values():
        options = {name: line.option(name) for name in moving.OPTIONS}
        kept = {name: value for name, value in options.items() if value}
        lines.append(
            moving.ClientLine(PublicKey(line.kind, line.blob, f"client {client}"), kept)
        )
    return moving.Move(
        *(client, note.state, note.destination, tuple(lines)),
        machine=machines.known(store, client),
        sealed=settings.load(client).sealed,
    )


def _close(store: Store, server: str, client: str) -> None:
    """Take no backup of the client any more: no session of it is under way."""
    note = _note(store, server, client)
    if note.state != move_note.OPEN:
        return
    change.check(client)
    with sessions.alone(store, client), move_note.changing(store):
        note = _note(store, server, client)
        closed = note._replace(state=move_note.CLOSED, since=time.time())
        move_note.write(store, client, closed)
    log.audit("CLOSE", host=client, replica=server)


def _let_go(store: Store, server: str, client: str, key: PublicKey) -> None:
    """Tell the client from now on where it backs up, and by which key to believe it.

    Once said, that stays: the key of the second server could be stolen later.
    """
    told = " ".join(key.line.split(" ")[:2])
    with store.lock_host(client, wait_s=LOCK_WAIT_S), move_note.changing(store):
        note = _note(store, server, client)
        if note.state == move_note.MOVED and note.host_key == told:
            return
        if note.state != move_note.CLOSED:
            raise RefusedError(
                f"{quote(client)} is not in the middle of moving",
                hint="byteback-clients move on the first server begins it anew",
            )
        moved = MoveNote(
            note.server, note.destination, move_note.MOVED, told, time.time()
        )
        move_note.write(store, client, moved)
    log.audit("MOVED", host=client, replica=server, to=note.destination)


def _note(store: Store, server: str, client: str) -> MoveNote:
    note = move_note.read(store, client)
    if note is None or not is_same_host(note.server, server):
        raise RefusedError(
            f"{quote(client)} is not moved to {quote(server)}",
            hint=f"on the first server, as root: byteback-clients move {client} "
            f"{server}",
        )
    # Since it was moved, for its machine was stolen, say.
    if retirement.read(store, client) is not None:
        raise RefusedError(
            f"{quote(client)} is retired there",
            hint=f"on the first server, as root: byteback-clients retire --undo "
            f"{client}",
        )
    return note
