"""Drops what a host has sent since its last snapshot."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from byteback.errors import BytebackError, ToolError, quote
from byteback.server.accounting import growth, ledger
from byteback.server.prune import repair
from byteback.server.prune.removal import SPACE_TIMEOUT_S
from byteback.server.snapshots import seal, sealing, take
from byteback.server.store import reserve
from byteback.server.store.layout import DISCARDED, Store
from byteback.server.transfer import runner
from byteback.system import files, privilege
from byteback.system.btrfs import commands


def discard(store: Store, client: str) -> list[str]:
    """Put ``current`` back to the host's newest snapshot, or to nothing without one.

    A transfer that is under way is ended first. The new ``current`` is made beside
    the old one and exchanged with it in one step, so that whenever this is cut off
    there is a whole ``current``, and what is left over the next pruning run deletes.
    Returns lines about what was done. Raises NotSetUpError if there is no such
    client, BusyError if its transfer does not end, ToolError if btrfs fails.
    """
    client = growth.check_client(store, client)
    before = commands.free_space(store.root)
    verdict = growth.verdicts(store, before, time.time()).get(client)
    with runner.own_lock(store, client):
        repair.clear_discarded(store, client)
        newest = take.newest_name(store, client)
        directory = store.host_directory(client)
        beside = directory / DISCARDED
        try:
            _make(store, client, newest, beside)
        except ToolError as error:
            if not (commands.is_out_of_space(error) and reserve.release(store)):
                raise
            _make(store, client, newest, beside)
        files.exchange(beside, store.current(client))
        commands.sync(store.root)
        repair.clear_discarded(store, client)
        ledger.forget_taken(store, client, _last_snapshot_time(store, client))
    commands.wait_for_deletions(store.root, SPACE_TIMEOUT_S)
    after = commands.free_space(store.root)
    lines = [
        f"current of {client} is back at {newest or 'nothing: it has no snapshot'}",
        f"free space was {before}, is {after}",
    ]
    since = verdict.blamed_since if verdict is not None else None
    if since is not None:
        made = [s.name for s in store.snapshots(client) if s.time.timestamp() >= since]
        if made:
            lines.append(f"what it took before is kept in {', '.join(made)}")
    return lines


def _make(store: Store, client: str, source: str | None, target: Path) -> None:
    if source is None:
        commands.create_subvolume(target)
        target.chmod(0o700)
    elif not seal.is_roots(target.with_name(source)):
        commands.take_snapshot(target.with_name(source), target, read_only=False)
    elif privilege.is_root_within_reach():
        sealing.copy(store, client, source, target.name)
    else:
        raise BytebackError(
            f"only root can copy the newest snapshot of {quote(client)}: it is sealed",
            hint="run this with sudo",
        )


def _last_snapshot_time(store: Store, client: str) -> float:
    recorded = growth.record_of(store, client).snapshots
    named: list[float] = []
    with contextlib.suppress(OSError):
        named = [snapshot.time.timestamp() for snapshot in store.snapshots(client)]
    return max([*recorded, *named], default=0.0)
