"""Gathers a status report from the store and the ledger; asks no client.

Whatever cannot be found out is left out: a store that is in trouble must still be able
to say so.
"""

from __future__ import annotations

import contextlib
import operator
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import byteback
from byteback.errors import UsageError
from byteback.model import alarms
from byteback.model.growth import Verdict
from byteback.model.snapshot import snapshot_names
from byteback.model.status import (
    NO_SNAPSHOTS,
    Alarm,
    Backup,
    Client,
    Report,
    Snapshots,
    StoreState,
)
from byteback.server.accounting import growth, ledger_file, ledger_report, sizes
from byteback.server.store import (
    clock,
    machines,
    marks,
    move_note,
    replica_note,
    replica_rounds,
    retirement,
    settings,
)
from byteback.server.store.layout import Store
from byteback.server.store.settings import ServerSettings
from byteback.system.btrfs import commands, health

# The zone in a snapshot's name.
_ZONE = operator.itemgetter(slice(len("2026-11-28T02:30"), None))
ENDS = 3  # names at either end of a sorted list, among which are the first and last


class _Notes(NamedTuple):
    """Things that are noted of few clients, each read for all of them at once."""

    failed_records: frozenset[str]
    clocks_ahead: Mapping[str, float]
    machines: Mapping[str, int]  # with one key, where there are several
    retired: frozenset[str]
    copies: frozenset[str]  # fetched from another server


def collect(
    store: Store,
    now: float,
    *,
    names: Sequence[str] = (),
    history: int | None = None,
    all_times: bool = False,
) -> Report:
    """The report at ``now``, in seconds since 1970.

    ``names`` limits it to these clients, ``history`` is how many backups of each it
    holds, and ``all_times`` adds the time and name of every snapshot. Raises
    NotSetUpError for a name that is no client.
    """
    with ledger_file.limited_patience():
        return _collect(store, now, names, history, all_times=all_times)


def _collect(
    store: Store,
    now: float,
    names: Sequence[str],
    history: int | None,
    *,
    all_times: bool,
) -> Report:
    names = [growth.check_client(store, name) for name in names]
    state, verdicts = _store_state(store, now)
    chosen = list(names) or store.hosts()
    backups = ledger_report.recent_backups(
        store, chosen, history or ledger_report.RECENT
    )
    copies = replica_note.copies(store, chosen)
    by_snapshots = copies | (set(chosen) - set(backups))
    snapshots = {
        name: _snapshots(store, name, all_times=all_times or name in by_snapshots)
        for name in chosen
    }
    oldest = {name: found.oldest for name, found in snapshots.items()}
    measured = sizes.client_sizes(store, oldest)
    expected = _expect_hours(chosen)
    notes = _read_notes(store, chosen, copies)
    clients = tuple(
        _client(
            store,
            name,
            backups.get(name, ()),
            snapshots[name],
            expected.get(name, -1.0),
            measured.get(name),
            verdicts.get(name),
            notes,
        )
        for name in chosen
    )
    times = [c.snapshots.oldest for c in clients if c.snapshots.oldest is not None]
    state = state._replace(
        oldest_snapshot=min(times, default=None),
        in_use_since=ledger_report.first_transfer(store),
    )
    found = [] if names else alarms.store_alarms(state, now)
    for client in clients:
        found += alarms.client_alarms(client, now)
    return Report(
        server=os.uname().nodename,
        version=byteback.__version__,
        time=now,
        store=state,
        clients=clients,
        alarms=tuple(found),
    )


def _read_notes(store: Store, chosen: Sequence[str], copies: frozenset[str]) -> _Notes:
    return _Notes(
        ledger_report.failed_records(store),
        ledger_report.clocks_ahead(store),
        machines.counts(store, chosen),
        # The other server answers for those that were moved there.
        retirement.retired_clients(store, chosen)
        | move_note.moved_clients(store, chosen),
        copies,
    )


def empty_report(state: StoreState, found: tuple[Alarm, ...], now: float) -> Report:
    """A report of a store that cannot be looked into."""
    return Report(
        server=os.uname().nodename,
        version=byteback.__version__,
        time=now,
        store=state,
        clients=(),
        alarms=found,
    )


def _client(
    store: Store,
    name: str,
    backups: tuple[Backup, ...],
    snapshots: Snapshots,
    expect_hours: float,
    size: sizes.ClientSize | None,
    verdict: Verdict | None,
    notes: _Notes,
) -> Client:
    said = []
    if verdict is not None and verdict.blamed_since is not None:
        said.append(growth.describe_blame(name, verdict))
    if verdict is not None and verdict.shrinkage is not None:
        said.append(growth.describe_shrinkage(name, verdict))
    return Client(
        name=name,
        record_failed=name in notes.failed_records,
        clock_ahead_s=notes.clocks_ahead.get(name),
        backups=backups,
        snapshots=snapshots,
        enrolled=_enrolled(store, name) if not (backups or snapshots.number) else None,
        expect_hours=expect_hours if expect_hours >= 0 else None,
        current_bytes=size.current if size is not None else None,
        history_bytes=size.history if size is not None else None,
        suddenly=tuple(said),
        machines=notes.machines.get(name, 1),
        is_retired=name in notes.retired,
        is_copy=name in notes.copies,
    )


def _expect_hours(names: Sequence[str]) -> dict[str, float]:
    """server.toml's word for each client; none if it cannot be read."""
    with contextlib.suppress(UsageError):
        found = settings.load_all(names)
        return {name: limits.expect_hours for name, limits in found.items()}
    return {}


def _store_state(store: Store, now: float) -> tuple[StoreState, dict[str, Verdict]]:
    """The store's state, and what stands out among its clients' backups."""
    free = commands.free_space(store.root)
    verdicts = growth.verdicts(store, free, now)
    scrub = health.last_scrub(store.root)
    limits = ServerSettings()
    with contextlib.suppress(UsageError):
        limits = settings.load()
    fault = "; ".join(fault.error.message for fault in settings.faults()) or None
    state = StoreState(
        is_read_only=bool(os.statvfs(store.root).f_flag & os.ST_RDONLY),
        free_bytes=free.free_bytes,
        total_bytes=free.total_bytes,
        min_percent=limits.min_percent,
        device_errors=health.device_errors(store.root),
        scrub_finished=scrub.finished if scrub is not None else None,
        scrub_errors=scrub.errors if scrub is not None else None,
        pruned=marks.read(store, marks.PRUNED),
        sealed=marks.read(store, marks.SEALED),
        seals=limits.sealed,
        prune_fault=marks.read_fault(store),
        prune_fault_since=marks.read(store, marks.PRUNE_FAULT),
        replicas=replica_rounds.read_all(store),
        settings_fault=fault,
        clock_fault=clock.fault(store, now),
    )
    return state, verdicts


def _snapshots(store: Store, name: str, *, all_times: bool) -> Snapshots:
    """A client's snapshots, and if wanted the times of them all.

    Names sort nearly as their times do: within hours, where zones differ.
    """
    try:
        names = snapshot_names(store.trees(name))
    except OSError:  # taken away while we look
        return NO_SNAPSHOTS
    # With one zone for all, the first name and the last one are exact.
    ends = ENDS if len(set(map(_ZONE, names))) > 1 else 1
    asked = names if all_times else names[:ends] + names[-ends:]
    found = store.dated(name, asked)
    if len(found) < len(asked):  # an impossible day among them
        found = store.dated(name, names)
        names = [snapshot.name for snapshot in found]
    if not found:
        return NO_SNAPSHOTS
    times = tuple(snapshot.time.timestamp() for snapshot in found)
    if not all_times:
        return Snapshots(len(names), times[0], times[-1])
    kept = tuple(snapshot.name for snapshot in found)
    return Snapshots(len(names), times[0], times[-1], times, kept)


def _enrolled(store: Store, name: str) -> float | None:
    """When a client without any snapshot was enrolled: its directory then changed."""
    with contextlib.suppress(OSError):
        return store.host_directory(name).stat().st_mtime
    return None
