"""Which trees of a client are the history of one directory, and in which order."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from byteback.model.snapshot import CURRENT, parse_snapshot_name
from byteback.server.store import tree
from byteback.system.btrfs import subvolume
from byteback.system.btrfs.subvolume import Subvolume

Chains = Sequence[Sequence[str]]

# The mode that sealing gives the top of a snapshot that was never written to (D29), for
# the sealing itself counts as writing. Only root can give it to what is root's, and
# rsync --fake-super leaves no directory without a way in for its owner.
UNTOUCHED_MODE = 0o550


def read_trees(directory: Path, names: Iterable[str]) -> dict[str, Subvolume]:
    """Read what btrfs knows of ``current`` and of the trees never written to.

    ``names`` are of trees in ``directory``; of all others nothing can be said.
    """
    found = {name: _read(directory / name) for name in names}
    return {name: one for name, one in found.items() if one is not None}


def chains_of(trees: Mapping[str, Subvolume]) -> Chains:
    """Names of trees that are states of one subvolume, newest first.

    What is the same in two trees of a chain was the same in all between. So only those
    are taken whose order in time btrfs itself vouches for, by transaction numbers and
    not by clocks, and which were not written to since. A tree that is in no chain
    stands alone.
    """
    chains: dict[bytes, list[tuple[int, str]]] = {}
    for name, found in trees.items():
        if name != CURRENT:
            chains.setdefault(found.parent_uuid, []).append((found.made, name))
    ordered = {
        uuid: [name for _, name in sorted(chain, reverse=True)]
        for uuid, chain in chains.items()
    }
    if CURRENT in trees and trees[CURRENT].uuid in ordered:
        ordered[trees[CURRENT].uuid].insert(0, CURRENT)
    return [chain for chain in ordered.values() if len(chain) > 1]


def _read(path: Path) -> Subvolume | None:
    """Facts about ``current``, or about a tree that was not written to since."""
    fd = tree.open_root(path)
    if fd is None:
        return None
    try:
        status = os.fstat(fd)
        # A plain directory would give what is known of the subvolume around it.
        if status.st_ino != subvolume.TOP_INODE:
            return None
        found = subvolume.read(fd)
        if found is None or path.name == CURRENT or found.is_untouched:
            return found
        return found if _was_untouched(fd, status, path.name) else None
    finally:
        os.close(fd)


def _was_untouched(fd: int, status: os.stat_result, name: str) -> bool:
    """True if a snapshot was sealed as it was taken, and cannot have changed since."""
    return (
        status.st_uid == 0
        and stat.S_IMODE(status.st_mode) == UNTOUCHED_MODE
        and parse_snapshot_name(name) is not None
        and subvolume.is_read_only(fd)
    )
