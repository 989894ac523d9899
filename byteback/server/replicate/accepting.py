"""Takes over clients that the first server moves to this one (D60).

First all of their history is fetched, while they go on backing up there. Then the first
server is asked to take no more of their backups, what came last is fetched, their keys
are let in here, and only then the first server may tell them to come.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from byteback import log
from byteback.errors import (
    BusyError,
    BytebackError,
    NotSetUpError,
    RefusedError,
    quote,
)
from byteback.model.hostname import is_same_host
from byteback.model.public_key import PublicKey
from byteback.server.replicate import admission, fetch
from byteback.server.replicate.line import Line, connected
from byteback.server.replicate.sources import Source
from byteback.server.store import change, move_note, retirement, settings
from byteback.server.store.layout import Store
from byteback.wire import moving
from byteback.wire.moving import Move

logger = logging.getLogger(__name__)

CLOSE_WAIT_S = 600.0  # for a session of the client on the first server
CLOSE_PAUSE_S = 15.0


def waiting(source: Source, only: Sequence[str] = ()) -> list[Move]:
    """The clients that are to come here from the first server, or those that are named.

    Raises NotSetUpError for a name that is not among them.
    """
    with connected(source) as line:
        found = moving.parse_moves(line.ask(moving.ListMoves()))
    for name in only:
        if not any(is_same_host(move.client, name) for move in found):
            raise NotSetUpError(
                f"{quote(name)} is not moved here by {line.name}",
                hint=f"there, as root: byteback-clients move {name} THIS-SERVER",
            )
    if not only:
        return [move for move in found if move.state != move_note.MOVED]
    return [
        move for move in found if any(is_same_host(move.client, name) for name in only)
    ]


def accept(
    store: Store, source: Source, move: Move, host_key: PublicKey, program: Path
) -> str:
    """Take one client over; the line about it. Harmless when done again.

    ``host_key`` is this server's, by which the client will believe it, and ``program``
    byteback-receive. The caller acts as the store's user and holds the lock of rounds.
    Raises BytebackError; the next call goes on.
    """
    client = move.client
    if move.state == move_note.MOVED:
        return f"{client} is here already"
    is_taken = admission.is_taken(store, move)
    if is_taken and move.state == move_note.OPEN:
        raise RefusedError(
            f"{quote(client)} is a client of this server already, with the same key",
            hint="what was moved and taken back there is made a copy again by "
            f"byteback-clients key --revoke {client}, byteback-replicate --adopt",
        )
    if not is_taken:
        _check(store, move)
        admission.begin(store, client, source.name)
        _fetch(store, source, client)
        with connected(source) as line:
            _close(line, client)
        _fetch(store, source, client)
        move = _closed(store, source, client)
        admission.take_over(store, move, source.name, program)
        keys = " ".join(one.key.fingerprint for one in move.lines)
        log.audit("ACCEPT", host=client, key=keys)
    with connected(source) as line:
        line.ask(moving.Taken(client, host_key))
    return f"accepted {client}: its next backup comes here, by {move.destination}"


def _closed(store: Store, source: Source, client: str) -> Move:
    """The client as the first server knows it now: fetching may have taken days.

    Its key may be another one since, because the old one was stolen, say. Raises
    BytebackError if it does not move any more.
    """
    (move,) = waiting(source, [client])
    if move.client != client or move.state != move_note.CLOSED:
        raise RefusedError(
            f"the first server moves {quote(client)} no longer, or anew",
            hint="give the same command again",
        )
    _check(store, move)
    return move


def _check(store: Store, move: Move) -> None:
    """Raise a BytebackError for a client that cannot be one here."""
    client = move.client
    change.check(client)
    if retirement.read(store, client) is not None:
        raise RefusedError(
            f"{quote(client)} is retired here",
            hint=f"byteback-clients retire --undo {client}",
        )
    if not move.lines:
        raise RefusedError(f"{quote(client)} has no key on the first server")
    if move.sealed and not settings.load(client).sealed:
        raise RefusedError(
            f"the first server seals the snapshots of {quote(client)}, and this one "
            "would not",
            hint="write 'sealed = true' into /etc/byteback/server.toml here",
        )


def _fetch(store: Store, source: Source, client: str) -> None:
    """Bring all of the client's history that is missing. Raises if some of it stays."""
    outcome = fetch.fetch(store, source, [client])
    if not outcome.listed:
        raise RefusedError(
            f"the first server says nothing of the history of {quote(client)}",
            hint="if it is there still, give the same command again",
        )
    if outcome.problems or outcome.missing:
        error = BytebackError(
            f"not all of the history of {quote(client)} is here, so that it is not "
            "taken over yet",
            hint="see what is named here, and give the same command again",
            details=outcome.problems[:5],
        )
        if outcome.errors:
            error.exit_status = outcome.errors[0].exit_status
        raise error


def _close(line: Line, client: str) -> None:
    """Have the first server take no more backups of the client, between two of them."""
    deadline = time.monotonic() + CLOSE_WAIT_S
    while True:
        try:
            line.ask(moving.Close(client))
        except BusyError as error:
            if time.monotonic() > deadline:
                raise
            logger.info("waiting: %s", error.message)
            time.sleep(CLOSE_PAUSE_S)
        else:
            return
