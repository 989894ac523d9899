"""Finds snapshots that no run can delete, and tells why.

Beforehand, so that a list can show them and that nothing else goes in their place
unnoticed. What is found here is looked at again immediately before each deletion.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from byteback.errors import quote
from byteback.model.snapshot import Snapshot
from byteback.server.snapshots import seal, sealing
from byteback.server.store.layout import Store
from byteback.system import privilege
from byteback.system.btrfs import commands


class Kind(enum.Enum):
    """Why something with the name of a snapshot cannot be deleted."""

    NO_SUBVOLUME = enum.auto()  # a plain directory: no snapshot at all
    OTHER_NAME = enum.auto()  # sealed under another HOST/NAME (D29)
    ROOTS = enum.auto()  # only root deletes it, and this run has not root's rights


class Obstacle(NamedTuple):
    """Why one snapshot cannot be deleted, for programs and for people."""

    kind: Kind
    reason: str


Obstacles = Mapping[Snapshot, Obstacle]


def find(store: Store, snapshots: Iterable[Snapshot]) -> Obstacles:
    """Those of ``snapshots`` that this run cannot delete, each with the reason."""
    by_host: dict[str, list[Snapshot]] = {}
    for snapshot in snapshots:
        by_host.setdefault(snapshot.host, []).append(snapshot)
    found: dict[Snapshot, Obstacle] = {}
    for client, own in by_host.items():
        # A host may be taken away, or closed to us, while we look.
        with contextlib.suppress(OSError):
            found.update(_find_in(store, client, own))
    return found


def of_kind(obstacles: Obstacles, *kinds: Kind) -> set[Snapshot]:
    """The snapshots that something of these kinds stands in the way of."""
    return {s for s, obstacle in obstacles.items() if obstacle.kind in kinds}


def _find_in(
    store: Store, client: str, snapshots: Collection[Snapshot]
) -> dict[Snapshot, Obstacle]:
    directory = store.host_directory(client)
    claims = sealing.claims(store, client, [snapshot.name for snapshot in snapshots])
    has_root = privilege.is_root_within_reach()
    found = {}
    for snapshot in snapshots:
        path = directory / snapshot.name
        claim = claims.get(snapshot.name)
        if not commands.is_subvolume(path):
            found[snapshot] = Obstacle(Kind.NO_SUBVOLUME, "it is no subvolume")
        elif claim is not None and claim != snapshot.path:
            reason = f"it is sealed as {quote(claim)}, and goes under that name alone"
            found[snapshot] = Obstacle(Kind.OTHER_NAME, reason)
        elif not has_root and seal.is_roots(path):
            found[snapshot] = Obstacle(Kind.ROOTS, "it is root's: only root deletes it")
    return found
