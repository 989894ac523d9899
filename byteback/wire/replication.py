"""The requests of a second server to the first one, and the listing that it gets.

Each request is the command of one ssh session: its words are separated by single
spaces and hold nothing that a shell would read. Neither side trusts the other one.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from byteback.errors import RefusedError, quote
from byteback.model.hostname import is_host_name
from byteback.model.replication import Offer, OfferedSnapshot
from byteback.model.snapshot import parse_snapshot_name
from byteback.wire import moving

PROGRAM = "byteback-replicate"
PROTOCOL = 1
MAX_REQUEST = 4096  # bytes
MAX_LISTING = 256 << 20  # bytes: 10,000 clients with 300 snapshots each
MAX_LINE = 8 << 20  # bytes: one client
MAX_CLIENTS = 20_000
MAX_SNAPSHOTS = 4_000_000  # of all clients: a gigabyte of memory
MAX_SHOWN = 80  # characters of a name that is none
ENOUGH_STRANGE = 20
_LIST, _FETCH, _SINCE = "--list", "--fetch", "--since="
_PRINTABLE = re.compile(rb"[!-~]+( [!-~]+)*")
_TOKEN = re.compile(r"[0-9a-f]{0,64}", re.ASCII)


class ListAll(NamedTuple):
    """All clients with their finished snapshots, as JSON lines."""


class Fetch(NamedTuple):
    """rsync is to read one whole snapshot; ``words`` are rsync's own, unchecked.

    ``base`` is the snapshot that the asking server has: before rsync's stream come the
    names of all files whose change since then rsync would not see (changed_names.py).
    """

    client: str
    snapshot: str
    words: tuple[str, ...]
    base: OfferedSnapshot | None = None


class Listing(NamedTuple):
    """The first server's answer to ListAll, and sentences about what was left out."""

    offers: tuple[Offer, ...]
    strange: tuple[str, ...] = ()


Request = ListAll | Fetch | moving.ListMoves | moving.Close | moving.Taken


def format_request(request: Request) -> str:
    """The command of a session; parse_request reads it back."""
    match request:
        case ListAll():
            return f"{PROGRAM} {_LIST}"
        case Fetch(client, snapshot, words, base):
            since = [f"{_SINCE}{base.name},{base.token}"] if base is not None else []
            return " ".join([PROGRAM, _FETCH, client, snapshot, *since, *words])
        case _:
            return " ".join([PROGRAM, *moving.format_words(request)])


def parse_request(command: bytes) -> Request:
    """Read SSH_ORIGINAL_COMMAND. Raises RefusedError, with a reason, for the rest."""
    if len(command) > MAX_REQUEST or not _PRINTABLE.fullmatch(command):
        raise RefusedError("this key can only read backups for another server")
    words = command.decode("ascii").split(" ")
    if words == [PROGRAM, _LIST]:
        return ListAll()
    if words[:1] == [PROGRAM] and words[1:2] and words[1] in moving.WORDS:
        return moving.parse_words(words[1:])
    if words[:2] != [PROGRAM, _FETCH] or len(words) < 5:
        raise RefusedError(
            f"{quote(' '.join(words)[:MAX_SHOWN])} cannot be run here",
            hint="this key is for byteback-replicate on another server",
        )
    client, snapshot = words[2:4]
    if not is_host_name(client):
        raise RefusedError(f"{quote(client[:MAX_SHOWN])} cannot be a client's name")
    if parse_snapshot_name(snapshot) is None:
        raise RefusedError(f"{quote(snapshot[:MAX_SHOWN])} is no snapshot's name")
    if not words[4].startswith(_SINCE):
        return Fetch(client, snapshot, tuple(words[4:]))
    name, _, token = words[4].removeprefix(_SINCE).partition(",")
    base = _snapshot([name, token, False])
    if base is None:
        raise RefusedError(f"{quote(name[:MAX_SHOWN])} is no snapshot's name")
    return Fetch(client, snapshot, tuple(words[5:]), base)


def format_header() -> str:
    """The first line of a listing."""
    from byteback import __version__

    return _format({"byteback": __version__, "replication": PROTOCOL})


def format_offer(offer: Offer) -> str:
    """One client's line of a listing."""
    snapshots = [[one.name, one.token, one.incomplete] for one in offer.snapshots]
    return _format({"client": offer.client, "snapshots": snapshots})


def format_end(count: int) -> str:
    """The last line of a listing: without it the listing was cut off."""
    return _format({"clients": count})


def parse_listing(text: bytes) -> Listing:
    """Read what the first server sent. Raises RefusedError if it is no listing."""
    if text.count(b"\n") > MAX_CLIENTS + 2:
        raise RefusedError("the first server's list of backups has too many clients")
    lines = text.split(b"\n")
    header, end = _parse(lines[0]), _parse(lines[-2] if len(lines) > 2 else b"")
    if header.get("replication") != PROTOCOL:
        raise RefusedError(
            "the first server does not answer as byteback does",
            hint="is its byteback as new as the one here, and does its login shell "
            "print nothing?",
        )
    if lines[-1] != b"" or end.get("clients") != len(lines) - 3:
        raise RefusedError("the first server's list of backups was cut off")
    offers: dict[str, Offer] = {}
    strange: list[str] = []
    count = 0
    for line in lines[1:-2]:
        count += _take(_parse(line), offers, strange)
        if count > MAX_SNAPSHOTS:
            raise RefusedError(
                "the first server's list of backups has too many snapshots"
            )
        # Each of millions of entries may be strange.
        del strange[ENOUGH_STRANGE:]
    return Listing(tuple(offers.values()), tuple(strange))


def _take(fields: dict[str, Any], offers: dict[str, Offer], strange: list[str]) -> int:
    """Take one client's line; how many snapshots it has."""
    client = fields.get("client")
    if not isinstance(client, str) or not is_host_name(client):
        strange.append(f"{quote(str(client)[:MAX_SHOWN])} cannot be a client's name")
        return 0
    if client.lower() in offers:
        strange.append(f"the client {quote(client)} is there twice")
        return 0
    names: set[str] = set()
    snapshots = []
    told = fields.get("snapshots")
    for entry in told if isinstance(told, list) else ():
        one = _snapshot(entry)
        if one is None or one.name in names:
            if len(strange) >= ENOUGH_STRANGE:
                continue
            shown = str(entry)[:MAX_SHOWN]
            strange.append(f"{quote(shown)} is no snapshot of {quote(client)}")
            continue
        names.add(one.name)
        snapshots.append(one)
    offers[client.lower()] = Offer(client, tuple(snapshots))
    return len(snapshots)


def _snapshot(entry: object) -> OfferedSnapshot | None:
    if not isinstance(entry, list) or len(entry) < 3:
        return None
    name, token, incomplete = entry[:3]
    if not isinstance(name, str) or parse_snapshot_name(name) is None:
        return None
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        return None
    return OfferedSnapshot(name, token, incomplete is True)


def _format(fields: dict[str, Any]) -> str:
    import json

    return json.dumps(fields, separators=(",", ":"))


def _parse(line: bytes) -> dict[str, Any]:
    import json

    if len(line) > MAX_LINE:
        return {}
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}
