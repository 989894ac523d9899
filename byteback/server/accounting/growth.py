"""Judges what each host's backups took from the disc by its other backups.

What is judged was measured by the server itself (D16). The ledger may be lost: then the
snapshots tell what is usual (D41).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping

from byteback.errors import (
    BytebackError,
    NoSuchClientError,
    UsageError,
    quote,
)
from byteback.model import growth
from byteback.model.free_space import FreeSpace
from byteback.model.growth import Backup, Origin, Rules, Taken, Verdict
from byteback.model.size import format_size
from byteback.model.snapshot import Snapshot
from byteback.server.accounting import ledger
from byteback.server.accounting.ledger import HostRecord
from byteback.server.store import replica_note, reserve, settings
from byteback.server.store.layout import Store
from byteback.server.store.settings import ServerSettings
from byteback.system.btrfs import commands


def verdicts(store: Store, free: FreeSpace, now: float) -> dict[str, Verdict]:
    """Judge each host's recent backups; hosts with nothing special are left out."""
    found = {}
    for client in suspects(store, free, now):
        verdict = judge_host(store, client, record_of(store, client), free, now)
        if verdict.blamed_since is not None or verdict.shrinkage is not None:
            found[client] = verdict
    return found


def suspects(store: Store, free: FreeSpace, now: float) -> list[str]:
    """The hosts of which one backup may stand out; judging all would take seconds.

    No backup counts as larger that takes less than ``growth_percent`` of the store,
    however many pushes it consists of. Of several settings the strictest counts, and
    the defaults where they cannot be read.
    """
    hosts = ledger.known_hosts(store)
    limits = [ServerSettings()]
    with contextlib.suppress(UsageError):
        limits = list(settings.load_all(hosts).values()) or limits
    share = min(limit.growth_percent for limit in limits) / 100
    size = size_of(free)
    least = Taken(int(share * size.data), int(share * size.metadata))
    factor = min(limit.shrink_factor for limit in limits)
    return ledger.hosts_that_stand_out(store, now, least, factor)


def held(
    snapshots: Iterable[Snapshot], verdicts_: Mapping[str, Verdict]
) -> dict[Snapshot, str]:
    """The snapshots that stay until an administrator has looked at their client."""
    found = {}
    for snapshot in snapshots:
        verdict = verdicts_.get(snapshot.host)
        lost = verdict.shrinkage if verdict is not None else None
        if lost is not None and snapshot.time.timestamp() < lost.since:
            found[snapshot] = "its host is suddenly smaller"
    return found


def blamed(verdicts_: Mapping[str, Verdict]) -> Taken:
    """All that suddenly larger backups have taken."""
    return sum((verdict.blamed for verdict in verdicts_.values()), Taken())


def describe_blame(client: str, verdict: Verdict) -> str:
    """Tell which host caused a shortage, and what an administrator can do."""
    amount = format_size(verdict.blamed.data + verdict.blamed.metadata)
    larger = "by a backup that is suddenly larger than its earlier ones"
    if verdict.is_guess:
        larger = "and it is not known yet how much its backups usually take"
    return (
        f"host {quote(client)} has taken {amount} {larger}, and no history is deleted "
        f"for that: 'byteback-prune --approve {client}' lets it be, 'byteback-prune "
        f"--discard {client}' drops it"
    )


def describe_shrinkage(client: str, verdict: Verdict) -> str:
    """Tell what a host has lost, and what an administrator can do."""
    lost = verdict.shrinkage
    if lost is None:
        return ""
    return (
        f"host {quote(client)} has only {lost.names} files and directories left of "
        f"usually {lost.usual_names}: its older snapshots are kept for 30 days, or "
        f"until 'byteback-prune --approve {client}' says that this is right"
    )


def approve(store: Store, client: str) -> list[str]:
    """Accept what a host's backups have become, and whatever the next one brings.

    Returns lines about what was amiss. Raises NoSuchClientError if there is no such
    client, BytebackError if it cannot be recorded.
    """
    client = check_client(store, client)
    verdict = verdicts(store, commands.free_space(store.root), time.time()).get(client)
    if not ledger.approve(store, client):
        reserve.release(store)
        if not ledger.approve(store, client):
            raise BytebackError(
                "the ledger cannot be written to, so nothing was approved",
                hint="the system log has the reason",
            )
    lines = [f"approved the backups of {client} up to its next snapshot"]
    if verdict is not None and verdict.blamed_since is not None:
        amount = format_size(verdict.blamed.data + verdict.blamed.metadata)
        lines.append(f"pruning may delete history for the {amount} that it has taken")
    if verdict is not None and verdict.shrinkage is not None:
        lines.append("pruning may delete its older snapshots again")
    return lines


def check_client(store: Store, client: str) -> str:
    """The client's name as the store has it; NoSuchClientError if there is none."""
    found = store.client_name(client)
    if found is None:
        raise NoSuchClientError(
            f"{quote(client)} is no client of this store",
            hint=f"the clients are the directories of {store.root} with current inside",
        )
    return found


def judge_host(
    store: Store, client: str, record: HostRecord, free: FreeSpace, now: float
) -> Verdict:
    """Judge one host's recent backups."""
    limits = ServerSettings()
    with contextlib.suppress(UsageError):
        limits = settings.load(client)
    return growth.judge(
        group_backups(record),
        now,
        size_of(free),
        rules_of(limits),
        origin_of(store, client, record),
    )


def record_of(store: Store, client: str) -> HostRecord:
    """The ledger's record of one host."""
    return ledger.host_records(store, client).get(client, HostRecord())


def group_backups(record: HostRecord) -> list[Backup]:
    """The host's pushes as backups, oldest first."""
    return growth.group(record.pushes, record.snapshots, record.approvals)


def rules_of(limits: ServerSettings) -> Rules:
    """The rules for growth in the settings."""
    return Rules(limits.growth_factor, limits.growth_percent, limits.shrink_factor)


def size_of(free: FreeSpace) -> Taken:
    """The whole store, in the kinds of room that backups take."""
    room = free.metadata.room_bytes if free.metadata is not None else 0
    return Taken(free.total_bytes, room)


def origin_of(store: Store, client: str, record: HostRecord) -> Origin:
    """The measure for the earliest backups in a record.

    Snapshots that another server made up are no measure for what it sends (D55).
    """
    if replica_note.is_copy(store, client):
        return Origin()
    return Origin(oldest_snapshot(store, client), record.baseline)


def oldest_snapshot(store: Store, client: str) -> float | None:
    """When the oldest of a host's snapshots was made, in seconds since 1970."""
    try:
        snapshots = store.snapshots(client)
    except OSError:
        return None
    return snapshots[0].time.timestamp() if snapshots else None
