"""One round: brings all that a first server has and this one lacks, oldest first."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from byteback import locking
from byteback.errors import (
    BytebackError,
    InterruptedBySignalError,
    UnreachableError,
    escape,
    quote,
)
from byteback.model import replication
from byteback.model.hostname import is_same_host
from byteback.model.replication import Held, Offer, OfferedSnapshot, Plan
from byteback.model.size import format_count
from byteback.model.status import Replica
from byteback.server.access import authorized_keys
from byteback.server.replicate import admission, bring
from byteback.server.replicate.line import Line, connected
from byteback.server.replicate.sources import Source
from byteback.server.store import (
    replica_note,
    replica_rounds,
    retirement,
    settings,
)
from byteback.server.store.layout import Store
from byteback.server.store.replica_note import ReplicaNote

logger = logging.getLogger(__name__)

LOCK = "replicate.lock"
# All first servers have their turn in this time, so that one which sends for ever holds
# no other one up for the 26 hours after which that would be an alarm.
ALL_S = 20 * 3600.0


@dataclass
class Outcome:
    """The end of a round with one first server."""

    brought: int = 0
    missing: int = 0  # that are there, and still not here
    listed: int = 0  # clients that were asked for, and that are there
    problems: list[str] = field(default_factory=list)
    errors: list[BytebackError] = field(default_factory=list)

    def tell(self, sentence: str, error: BytebackError | None = None) -> None:
        """Note what went wrong."""
        self.problems.append(sentence)
        logger.warning("%s", escape(sentence))
        if error is not None:
            self.errors.append(error)
            for line in error.details:
                logger.info("  %s", escape(line))

    def tell_any(self, *sentences: str) -> None:
        """Note each sentence but empty ones."""
        for sentence in filter(None, sentences):
            self.tell(sentence)


@contextlib.contextmanager
def locked(store: Store) -> Iterator[None]:
    """One run at a time fetches. Raises LockedError."""
    with locking.hold(store.state / LOCK):
        yield


def show(store: Store, source: Source, only: Sequence[str] = ()) -> list[str]:
    """A line for each snapshot that a round would bring, or would not."""
    with connected(source) as line:
        plans, outcome = _look(store, line, only)
    lines = [
        f"would bring {plan.client}/{one.name}"
        for plan in plans
        for one in plan.missing
    ]
    return [*lines, *(f"would not: {escape(one)}" for one in outcome.problems)]


def share_s(sources: int) -> float:
    """How long one of so many first servers may take in a round, in seconds."""
    return math.inf if sources == 1 else ALL_S / sources


def fetch(
    store: Store,
    source: Source,
    only: Sequence[str] = (),
    *,
    within_s: float = math.inf,
    checksum: bool = False,
) -> Outcome:
    """Bring what is missing of all clients, or of those that are named in ``only``.

    The caller acts as the store's user, and holds the lock. What is not done
    ``within_s`` seconds is left for the next round. Raises UnreachableError or
    another BytebackError if nothing at all could be done; what went wrong with single
    clients is in the outcome.
    """
    started = time.time()
    until = time.monotonic() + within_s
    before = replica_rounds.read(store, source.name)
    began = before.began if before is not None else None
    note = Replica(
        source.name, started, before.done if before else None, began or started
    )
    try:
        with connected(source) as line:
            plans, outcome = _look(store, line, only)
            bring_one = functools.partial(
                bring.bring,
                store,
                line,
                started=started,
                until=until,
                checksum=checksum,
            )
            _bring_all(plans, outcome, bring_one, line.read_listing)
    except BytebackError as error:
        problems = (error.message,)
        missing = before.missing if before is not None else 0
        replica_rounds.write(store, note._replace(missing=missing, problems=problems))
        raise
    is_done = not outcome.missing and not only
    replica_rounds.write(
        store,
        note._replace(
            done=time.time() if is_done else note.done,
            missing=outcome.missing,
            problems=tuple(outcome.problems),
        ),
    )
    return outcome


def _look(store: Store, line: Line, only: Sequence[str]) -> tuple[list[Plan], Outcome]:
    """Compare what is offered with what is here, client by client."""
    listing = line.read_listing()
    outcome = Outcome()
    outcome.tell_any(*listing.strange)
    notes = _notes(store, line.source.name)
    in_use = admission.names_in_use(store, authorized_keys.read(store))
    limits = settings.load()
    room, too_many = limits.replica_clients - len(notes), 0
    plans = []
    for offer in listing.offers:
        if only and not any(is_same_host(offer.client, name) for name in only):
            continue
        outcome.listed += 1
        is_new = offer.client not in notes
        refusal = _refusal(store, line.source, offer, in_use)
        if refusal is None and is_new and room > 0:
            refusal = _refusal_of_new(offer, notes)
        if refusal is not None:
            outcome.tell_any(refusal)
            continue
        if is_new and room <= 0:
            too_many += 1
            continue
        room -= is_new
        found = _plan(store, offer, notes.get(offer.client), limits.replica_snapshots)
        outcome.tell_any(*found.refused)
        plans.append(found)
    if too_many:
        outcome.tell(
            f"{format_count(too_many, 'client')} more than replica_clients allows: "
            f"{limits.replica_clients} of {quote(line.source.name)} can be here"
        )
    return plans, outcome


def _refusal_of_new(offer: Offer, notes: Mapping[str, ReplicaNote]) -> str | None:
    """The reason not to bring a client that was renamed on the first server."""
    tokens = {client: note.tokens.values() for client, note in notes.items()}
    other = replication.same_history(offer, tokens)
    if other is None:
        return None
    return (
        f"{quote(offer.client)} has the snapshots there that {quote(other)} has here; "
        f"if it was renamed, 'byteback-clients rename {other} {offer.client}' does the "
        "same here"
    )


def _notes(store: Store, source: str) -> dict[str, ReplicaNote]:
    """The clients that were fetched from one first server."""
    found = {}
    for client in store.hosts():
        note = replica_note.read(store, client)
        if note is not None and note.source in (source, ""):
            found[client] = note
    return found


def _refusal(
    store: Store, source: Source, offer: Offer, in_use: set[str]
) -> str | None:
    """Why nothing of a client is brought; empty for no reason that is worth a word."""
    client = offer.client
    here = store.client_name(client)
    if here is not None and here != client:
        return f"{quote(client)} is called {quote(here)} here"
    if retirement.read(store, client) is not None or not offer.snapshots:
        return ""
    note = replica_note.read(store, client)
    if note is None:
        return admission.refusal(client) if client.lower() in in_use else None
    if note.source not in (source.name, ""):
        return f"{quote(client)} is fetched from {quote(note.source)} already"
    return None


def _plan(store: Store, offer: Offer, note: ReplicaNote | None, most: int) -> Plan:
    """Compare what is offered of a client with what is here, of ``most`` snapshots."""
    dated = store.dated(offer.client, [one.name for one in offer.snapshots])
    held = Held()
    # A run may have been cut off between the note and the directory.
    if note is not None and store.host_directory(offer.client).is_dir():
        held = Held(tuple(store.snapshots(offer.client)), note.tokens)
        _forget_tokens(store, offer, note)
    times = {one.name: one.time for one in dated}
    known = tuple(one for one in offer.snapshots if one.name in times)
    found = replication.plan(
        offer._replace(snapshots=known), times, held, datetime.now(UTC)
    )
    room = max(0, most - len(held.snapshots))
    if len(found.missing) <= room:
        return found
    count = format_count(len(found.missing) - room, "snapshot")
    sentence = (
        f"{count} of {quote(offer.client)} more than replica_snapshots allows: {most} "
        "can be here"
    )
    return found._replace(
        missing=found.missing[:room], refused=(*found.refused, sentence)
    )


def _forget_tokens(store: Store, offer: Offer, note: ReplicaNote) -> None:
    """Forget the tokens of what is neither there nor here any more."""
    kept = {one.name for one in offer.snapshots} | set(store.trees(offer.client))
    tokens = {name: token for name, token in note.tokens.items() if name in kept}
    if len(tokens) != len(note.tokens):
        replica_note.write(store, offer.client, note._replace(tokens=tokens))


def _bring_all(
    plans: Sequence[Plan],
    outcome: Outcome,
    bring_one: Callable[[str, OfferedSnapshot], None],
    ask_again: Callable[[], object],
) -> None:
    """Bring what the plans say; a client that fails does not hold up the others.

    ``ask_again`` raises UnreachableError where it is the first server that is gone:
    a session also ends so where a client's own files are too much for it.
    """
    outcome.missing = sum(len(plan.missing) for plan in plans)
    try:
        # A client that is new here, with a year of history, is not to hold up others.
        for plan in sorted(plans, key=lambda plan: len(plan.missing)):
            try:
                _bring_client(plan, outcome, bring_one)
            except UnreachableError as error:
                ask_again()
                outcome.tell(f"{quote(plan.client)}: {error.message}", error)
    except bring.TimeOverError as error:
        logger.info("%s", escape(error.message))
    if outcome.missing:
        left = format_count(outcome.missing, "snapshot")
        logger.info("%s left for the next round", left)


def _bring_client(
    plan: Plan, outcome: Outcome, bring_one: Callable[[str, OfferedSnapshot], None]
) -> None:
    for one in plan.missing:
        try:
            bring_one(plan.client, one)
        except (UnreachableError, InterruptedBySignalError, bring.TimeOverError):
            raise
        except BytebackError as error:
            outcome.tell(f"{quote(plan.client)}: {error.message}", error)
            return
        outcome.brought += 1
        outcome.missing -= 1
        logger.info("brought %s/%s", plan.client, one.name)
