"""Measures in a host's snapshots what its backups took before the ledger knew of any.

A store that was adopted, or that lost its ledger, has years of history and no record.
Without a measure one hostile client could have all of that deleted for its rubbish on
that very day; so what its backups usually take is read off the snapshots (D41).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from byteback.errors import BytebackError, quote
from byteback.model import growth as model
from byteback.model.growth import Step, Taken
from byteback.model.size import format_size
from byteback.model.snapshot import Snapshot
from byteback.server.accounting import bounded_walk, growth, ledger, times_of_change
from byteback.server.store import settings, tree
from byteback.server.store.layout import Store
from byteback.system import privilege
from byteback.system.btrfs import commands, subvolume, writes

logger = logging.getLogger(__name__)

ONE_S = 20.0  # for one host; a larger one is judged by what was seen until then
ALL_S = 60.0  # of one run; the next goes on
AGAIN_S = 30 * 86400.0  # a host that was long away may need what it did not need before
# What one name takes of metadata, with its attributes: 500 to 800 bytes were measured.
# An upgraded client writes those of all files anew, once.
NAME_BYTES = 1024
# Of data there are sums, and the places of its pieces: 0.2 percent were measured.
DATA_PER_METADATA = 256


def measure_needed(store: Store) -> bool:
    """Measure the hosts that nothing else can judge; whether all of them were.

    For a run that finds space short, before it decides whom that is to cost history.
    What is not reached has the next run.
    """
    new = _not_looked_into(store)
    sent = ledger.host_records(store)
    return all(_look_within_time(store, [*sorted(sent), *(new - sent.keys())], new))


def measure_new(store: Store) -> bool:
    """Measure all hosts that were not measured for a month, at leisure.

    So that the measure is there before it is needed. Returns whether all were reached.
    """
    new = _not_looked_into(store)
    return all(_look_within_time(store, sorted(new), new))


def _not_looked_into(store: Store) -> set[str]:
    return {*store.hosts()} - ledger.looked_into(store, time.time() - AGAIN_S)


def _look_within_time(
    store: Store, hosts: Sequence[str], new: Collection[str]
) -> Iterator[bool]:
    """Look into one host after the other, as long as there is time; False then."""
    deadline = time.monotonic() + ALL_S
    for client in hosts:
        if time.monotonic() > deadline:
            yield False
            return
        try:
            _look_into(store, client, is_new=client in new)
        except (OSError, BytebackError) as error:  # gone meanwhile, or closed to us
            logger.info("cannot measure the backups of %s: %s", quote(client), error)
        yield True


def _look_into(store: Store, client: str, *, is_new: bool) -> None:
    """Measure one host, if that is needed and this run can do it."""
    if not privilege.is_root_within_reach() and settings.load().sealed:
        return  # root prunes here, and measures better
    now = time.time()
    record = growth.record_of(store, client)
    origin = growth.origin_of(store, client, record)
    size = growth.size_of(commands.free_space(store.root))
    rules = growth.rules_of(settings.load(client))
    backups = growth.group_backups(record)
    if record.baseline is not None:
        return
    if not model.needs_baseline(backups, now, size, rules, origin):
        if is_new:
            ledger.note_baseline(store, client, None)
        return
    taken, unrecorded = _measure(store, client, backups[0].began if backups else now)
    ledger.note_baseline(store, client, taken)
    amount = format_size(taken.data + taken.metadata)
    logger.info(
        "a backup of %s usually takes up to %s, by its snapshots", client, amount
    )
    limit = model.allowance([], None, now, size, rules, origin._replace(baseline=taken))
    if not backups and limit is not None and limit.is_exceeded_by(unrecorded):
        ledger.note_unrecorded(store, client, unrecorded)


def _measure(store: Store, client: str, before: float) -> tuple[Taken, Taken]:
    """Measure the most that a backup took, and what only ``current`` holds.

    By snapshots from before that time alone: no client sets its own measure.
    """
    snapshots = [
        snapshot
        for snapshot in store.snapshots(client)
        if snapshot.time.timestamp() + model.SNAPSHOT_NAME_S <= before
    ][-model.REMEMBERED - 1 :]
    if not snapshots:
        return Taken(), Taken()
    deadline = time.monotonic() + ONE_S
    try:
        steps, unrecorded = _by_transactions(store, client, snapshots, deadline)
    except OSError:  # not root
        times = [snapshot.time.timestamp() for snapshot in snapshots]
        steps, unrecorded = times_of_change.measure(store.current(client), times, ONE_S)
    usual = model.largest_step(steps)
    newest = store.host_directory(client) / snapshots[-1].name
    names, _ = bounded_walk.count(os.fspath(newest), ONE_S)
    # Sums of what files hold, and the places of it, are metadata, too.
    metadata = usual.metadata + usual.data // DATA_PER_METADATA
    return Taken(usual.data, max(metadata, names * NAME_BYTES)), unrecorded


class _State(NamedTuple):
    """A snapshot of a host, or its ``current``, opened."""

    time: float  # seconds since 1970
    fd: int
    made: int  # by which transaction


def _by_transactions(
    store: Store, client: str, snapshots: Sequence[Snapshot], deadline: float
) -> tuple[list[Step], Taken]:
    """Measure, by btrfs, what was written between snapshots and since the newest.

    Raises OSError for all users but root.
    """
    with contextlib.ExitStack() as stack:
        current = _open(stack, store.current(client), math.inf)
        found = [
            _open(stack, store.host_directory(client) / s.name, s.time.timestamp())
            for s in reversed(snapshots)
        ]
        states = [state for state in found if state is not None]
        steps = [
            Step(later.time - earlier.time, _written(later.fd, earlier, deadline))
            for later, earlier in itertools.pairwise(states)
            if later.made > earlier.made
        ]
        if current is None or not states:
            return steps, Taken()
        return steps, _written(current.fd, states[0], deadline)


def _open(stack: contextlib.ExitStack, path: Path, seconds: float) -> _State | None:
    fd = tree.open_root(path)
    if fd is None:
        return None
    stack.callback(os.close, fd)
    found = subvolume.read(fd)
    if found is None or os.fstat(fd).st_ino != subvolume.TOP_INODE:
        return None
    return _State(seconds, fd, found.made)


def _written(fd: int, earlier: _State, deadline: float) -> Taken:
    left = max(0.0, deadline - time.monotonic())
    with privilege.raised():
        found = writes.written_since(fd, earlier.made, left)
    return Taken(found.data, found.metadata)
