"""The requests by which a second server takes over clients of the first (D60).

The second one's key serves for them, but only for clients that the first server's root
is moving to it. Neither side trusts the other one.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from byteback.errors import RefusedError, UsageError
from byteback.model.destination import format_destination
from byteback.model.hostname import is_host_name
from byteback.model.public_key import PublicKey, parse_public_key
from byteback.wire.moved import check_destination

LIST, CLOSE, TAKEN = "--moves", "--close", "--taken"
WORDS = (LIST, CLOSE, TAKEN)
MAX_KEYS = 16  # of one client
# What an administrator may have added to a key's line, and may be taken over.
OPTIONS = ("from", "expiry-time")
_OPTION = re.compile(r"[A-Za-z0-9.:/,*?!_-]{1,1000}", re.ASCII)
# Raised by fields of other types than ours, by nesting without an end, and by keys.
_WRONG_TYPE = (ValueError, LookupError, TypeError, AttributeError)
_STRANGE = (*_WRONG_TYPE, RecursionError, UsageError)
_MACHINE = re.compile(r"[0-9a-f]{32}", re.ASCII)


class ListMoves(NamedTuple):
    """The clients that are being moved to the server that asks, as JSON lines."""


class Close(NamedTuple):
    """From now on the first server takes no backup of the client."""

    client: str


class Taken(NamedTuple):
    """The second server has the client; ``key`` is its host key."""

    client: str
    key: PublicKey


class ClientLine(NamedTuple):
    """A key of a client's, with what its line in authorized_keys says besides."""

    key: PublicKey
    options: dict[str, str]


class Move(NamedTuple):
    """A client that the first server is moving to this one."""

    client: str
    state: str  # as in store/move_note.py
    destination: str  # by which the client will come
    lines: tuple[ClientLine, ...]
    machine: str | None
    sealed: bool  # the first server seals the client's snapshots


def format_words(request: ListMoves | Close | Taken) -> list[str]:
    """The words of a request behind the program's name."""
    match request:
        case ListMoves():
            return [LIST]
        case Close(client):
            return [CLOSE, client]
        case Taken(client, key):
            return [TAKEN, client, *key.line.split(" ")[:2]]


def parse_words(words: list[str]) -> ListMoves | Close | Taken:
    """Raises RefusedError for words that are none of these requests."""
    if words == [LIST]:
        return ListMoves()
    if len(words) > 1 and is_host_name(words[1]):
        if words[0] == CLOSE and len(words) == 2:
            return Close(words[1])
        if words[0] == TAKEN and len(words) == 4:
            try:
                return Taken(words[1], parse_public_key(" ".join(words[2:])))
            except UsageError as error:
                raise RefusedError(error.message) from None
    raise RefusedError("this is no request about the moving of a client")


def is_option(value: str) -> bool:
    """True if a value of one of OPTIONS can be told to another server."""
    return _OPTION.fullmatch(value) is not None


def format_move(move: Move) -> str:
    """One client's line."""
    lines = [{"key": line.key.line, "options": line.options} for line in move.lines]
    return json.dumps(move._asdict() | {"lines": lines})


def parse_moves(text: bytes) -> list[Move]:
    """Read the answer to ListMoves. Raises RefusedError if it is none."""
    found: dict[str, Move] = {}
    for line in text.splitlines():
        try:
            move = _parse_move(json.loads(line))
        except _STRANGE:
            raise RefusedError(
                "the first server's list of clients that move cannot be understood",
                hint="is its byteback as new as the one here?",
            ) from None
        found[move.client.lower()] = move
    return list(found.values())


def _parse_move(fields: dict[str, Any]) -> Move:
    client, machine = fields["client"], fields["machine"]
    if not isinstance(client, str) or not is_host_name(client):
        raise ValueError
    if machine is not None and not _MACHINE.fullmatch(machine):
        raise ValueError
    # Root's terminal shows it.
    destination = format_destination(check_destination(fields["destination"]))
    lines = [_parse_line(one) for one in fields["lines"][:MAX_KEYS]]
    return Move(
        *(client, str(fields["state"])[:20], destination),
        lines=tuple(lines),
        machine=machine,
        sealed=fields["sealed"] is True,
    )


def _parse_line(fields: dict[str, Any]) -> ClientLine:
    options = {}
    for name, value in fields["options"].items():
        # To leave one out would let the key in from more places, or for longer.
        if name not in OPTIONS or not is_option(value):
            raise ValueError
        options[name] = value
    return ClientLine(parse_public_key(fields["key"]), options)
