"""Which trees of a client are the history of one directory, and in which order."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from byteback.model.snapshot import CURRENT
from byteback.server import tree
from byteback.tools import subvolume

Chains = Sequence[Sequence[str]]


def read_chains(directory: Path, names: Iterable[str]) -> Chains:
    """Names of trees in ``directory`` that are states of one subvolume, newest first.

    What is the same in two trees of a chain was the same in all between. So only those
    are taken whose order in time btrfs itself vouches for, by transaction numbers and
    not by clocks, and which nobody has written to since. A tree that is in no chain
    stands alone.
    """
    chains: dict[bytes, list[tuple[int, str]]] = {}
    origin: bytes | None = None
    for name in names:
        found = _read(directory / name)
        if found is None:
            continue
        if name == CURRENT:
            origin = found.uuid
        elif found.is_untouched:
            chains.setdefault(found.parent_uuid, []).append((found.made, name))
    ordered = {
        uuid: [name for _, name in sorted(chain, reverse=True)]
        for uuid, chain in chains.items()
    }
    if origin in ordered:
        ordered[origin].insert(0, CURRENT)
    return [chain for chain in ordered.values() if len(chain) > 1]


def _read(path: Path) -> subvolume.Subvolume | None:
    fd = tree.open_root(path)
    if fd is None:
        return None
    try:
        # A plain directory would give what is known of the subvolume around it.
        if os.fstat(fd).st_ino != subvolume.TOP_INODE:
            return None
        return subvolume.read(fd)
    finally:
        os.close(fd)
