"""Counts the names in new snapshots, by which a host is found suddenly smaller.

Counted, not weighed: who encrypts a machine's files makes them no smaller. And counted
by pruning, not by the session that made the backup, so that no client waits for it and
none can keep it from being done by beginning the next transfer at once. Where the
directories are known that have changed since an earlier snapshot, these alone are
looked at (D49).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection

from byteback.model.snapshot import parse_snapshot_name
from byteback.server.accounting import bounded_walk, growth, ledger
from byteback.server.accounting.changed_names import count_by_changes
from byteback.server.store.layout import Store
from byteback.system.btrfs import commands

logger = logging.getLogger(__name__)

COUNT_S = 60.0  # for the names in a tree; larger ones are not judged by them
ALL_COUNTS_S = 120.0  # of one run: pruning itself waits as long


def count_new(store: Store, clients: Collection[str] | None = None) -> list[str]:
    """Count what the ledger has no number for yet; nothing here fails a run.

    The newest snapshots of all clients, or of these, come first. What is not reached
    has the next run: those clients are returned. Of a host that turns out to be
    suddenly smaller the log says so.
    """
    deadline = time.monotonic() + ALL_COUNTS_S
    found = ledger.uncounted(store, clients)
    for at, (client, name, push) in enumerate(found):
        left = deadline - time.monotonic()
        if left <= 0:
            return [client for client, _, _ in found[at:]]
        path = store.host_directory(client) / name
        if parse_snapshot_name(name) is None or not commands.is_subvolume(path):
            ledger.note_names(store, push, None)  # gone meanwhile
            continue
        names = count_by_changes(store, client, name)
        if names is None:
            names = count_names(os.fspath(path), min(COUNT_S, left))
        if names is None and left < COUNT_S:
            return [client for client, _, _ in found[at:]]
        ledger.note_names(store, push, names)
        _tell_shrinkage(store, client)
    return []


def count_names(directory: str, timeout_s: float = COUNT_S) -> int | None:
    """How many names there are beneath ``directory``, or None if that takes too long.

    Without looking at any file: names are all that is wanted.
    """
    count, is_all = bounded_walk.count(directory, timeout_s)
    return count if is_all else None


def _tell_shrinkage(store: Store, client: str) -> None:
    record = growth.record_of(store, client)
    free = commands.free_space(store.root)
    verdict = growth.judge_host(store, client, record, free, time.time())
    if verdict.shrinkage is not None:
        logger.warning("%s", growth.describe_shrinkage(client, verdict))
