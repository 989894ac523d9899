"""The list of all clients, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, tzinfo
from enum import StrEnum

from byteback.errors import escape
from byteback.model.invitation import Invitation
from byteback.model.key_line import KeyLine
from byteback.model.public_key import format_fingerprint

GAP = "  "
NOTHING = "-"
HEADER = ("client", "state", "snapshots", "oldest", "newest", "key")


class Standing(StrEnum):
    """The state of a client in the store."""

    ACTIVE = "active"
    RETIRED = "retired"  # it is refused, and its history ages
    MOVING = "moving"  # to another server, which has not taken it over yet
    MOVED = "moved"  # it is told to back up to another server
    NO_KEY = "no key"  # it can neither back up nor restore
    NO_DIRECTORY = "no directory"  # an enrolment that was cut off, or an accident


@dataclass(frozen=True)
class ClientKey:
    """A key that is bound to a client."""

    kind: str
    fingerprint: str
    address: str | None  # where it is let in from, None for everywhere
    is_old_line: bool  # its line in authorized_keys is the old tool's


@dataclass(frozen=True)
class ListedClient:
    """A client, and what the store has of it. Snapshots are named, not timed."""

    name: str
    standing: Standing
    keys: tuple[ClientKey, ...] = ()
    snapshots: int = 0
    oldest: str | None = None
    newest: str | None = None
    retired: float | None = None  # since then, in seconds since 1970
    kept_until: float | None = None  # and removed then


def describe_key(line: KeyLine) -> ClientKey:
    """What is worth knowing of a line that lets a client's key in."""
    return ClientKey(
        line.kind,
        format_fingerprint(line.blob),
        line.option("from") or None,
        line.needs_environment,
    )


def format_list(clients: Sequence[ListedClient]) -> list[str]:
    """The table of clients, one line for each."""
    return format_columns([HEADER, *map(_row, clients)])


def format_keys(keys: Sequence[ClientKey]) -> list[str]:
    """One line for each key: its fingerprint, its type, and how it is limited."""
    return [GAP.join(_key_words(key)) for key in keys]


def describe_invitation(invitation: Invitation, zone: tzinfo) -> str:
    """One line about an invitation that was not used yet."""
    until = format_time(invitation.until, zone)
    return GAP.join(
        [invitation.number, f"until {until}", invitation.name or "any name"]
    )


def format_time(seconds: float, zone: tzinfo) -> str:
    """A moment, given in seconds since 1970."""
    return f"{datetime.fromtimestamp(seconds, zone):%Y-%m-%d %H:%M}"


def format_json(clients: Sequence[ListedClient]) -> str:
    """All clients as one JSON object. Later versions may add names."""
    return json.dumps({"clients": [asdict(client) for client in clients]}, indent=2)


def format_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text below each other, without blanks at their ends."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        GAP.join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def _row(client: ListedClient) -> tuple[str, ...]:
    keys = ", ".join(key.fingerprint for key in client.keys)
    return (
        client.name,
        client.standing.value,
        str(client.snapshots),
        client.oldest or NOTHING,
        client.newest or NOTHING,
        keys or NOTHING,
    )


def _key_words(key: ClientKey) -> list[str]:
    words = [key.fingerprint, key.kind]
    if key.address is not None:
        words.append(f"from {escape(key.address)}")
    if key.is_old_line:
        words.append("the old tool's line")
    return words
