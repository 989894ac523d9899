"""Which snapshots of another server are missing here, and which are not taken.

What the other server offers is hostile input: its names and dates are only believed as
far as nothing that is here already can suffer from it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from byteback.errors import quote
from byteback.model.snapshot import MISDATED_BY, Snapshot

ENOUGH_TOLD = 5  # sentences about snapshots of one client; the rest is counted


class OfferedSnapshot(NamedTuple):
    """A finished snapshot that the other server has."""

    name: str
    token: str  # tells it from any other one of that name; empty for not known
    incomplete: bool = False  # it lacks files that the client could not read


class Offer(NamedTuple):
    """What the other server has of one client."""

    client: str
    snapshots: tuple[OfferedSnapshot, ...]


class Held(NamedTuple):
    """What is here of one client that is fetched from another server."""

    snapshots: tuple[Snapshot, ...] = ()  # oldest first
    tokens: Mapping[str, str] = {}  # of all that was ever brought and is still offered


class Plan(NamedTuple):
    """What is to be brought of one client, and what is not, with the reasons."""

    client: str
    missing: tuple[OfferedSnapshot, ...]  # oldest first
    refused: tuple[str, ...]


def plan(
    offer: Offer, times: Mapping[str, datetime], held: Held, now: datetime
) -> Plan:
    """Compare what is offered of one client with what is here.

    ``times`` has the time of each name that is offered. Nothing that is here is ever
    replaced, and what is not newer than the newest one here is not brought: it was
    here, and was pruned, or it was made up.
    """
    here = {snapshot.name for snapshot in held.snapshots}
    newest = max((snapshot.time for snapshot in held.snapshots), default=None)
    missing, refused = [], []
    for one in sorted(offer.snapshots, key=lambda one: times[one.name]):
        what = quote(f"{offer.client}/{one.name}")
        known = held.tokens.get(one.name)
        if one.name in here:
            if known and one.token and known != one.token:
                refused.append(
                    f"{what} is another snapshot there than the one that was brought; "
                    "the one here stays"
                )
        elif times[one.name] > now + MISDATED_BY:
            refused.append(f"{what} is dated more than a day ahead")
        elif newest is None or times[one.name] > newest:
            missing.append(one)
        elif known is None:
            refused.append(
                f"{what} is older than the newest one here, and was never here"
            )
    return Plan(offer.client, tuple(missing), _cut(refused, offer.client))


def same_history(offer: Offer, tokens: Mapping[str, Collection[str]]) -> str | None:
    """The client here that has the offered snapshots already, under another name.

    ``tokens`` are those of each client that was brought from that server.
    """
    offered = {one.token for one in offer.snapshots if one.token}
    for client in sorted(tokens):
        if client != offer.client and not offered.isdisjoint(tokens[client]):
            return client
    return None


def _cut(sentences: Sequence[str], client: str) -> tuple[str, ...]:
    if len(sentences) <= ENOUGH_TOLD + 1:
        return tuple(sentences)
    more = len(sentences) - ENOUGH_TOLD
    told = f"and so it is with {more} more snapshots of {quote(client)}"
    return (*sentences[:ENOUGH_TOLD], told)
