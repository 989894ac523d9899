"""Adds to an index the names that came later, without reading the trees again (D49).

The journal of changes tells in which directories names came or went. These are read in
the trees that are new, and what is in them goes into a second file, beside the index.
What went stays in the index: a name too many does no harm.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from byteback.errors import RefusedError
from byteback.model.snapshot import CURRENT
from byteback.server.search import name_index
from byteback.server.search.index_part import Part, decode
from byteback.server.search.name_index import Files, Identity
from byteback.server.store import change_journal, tree
from byteback.server.store.change_journal import Journal
from byteback.server.store.layout import Store
from byteback.system.btrfs.subvolume import Subvolume

MAX_SIZE = 1 << 22  # bytes of the second file; with more, a new index is made
MAX_SECONDS = 10.0

Names = dict[str, set[str]]  # in each directory, by its path: "/" or "/etc"


def add(
    store: Store,
    client: str,
    trees: Mapping[str, Subvolume],
    wanted: Mapping[str, Identity | None],
) -> bool:
    """Make the index cover the ``wanted`` trees, if it is known what is new in them.

    ``trees`` are those of which lineage.read_trees can tell. False if they have to be
    read as a whole. Raises OSError.
    """
    index = name_index.read(store, client)
    journal = change_journal.read(store, client)
    if index is None or journal is None or not index.is_whole:
        return False
    if index.made < journal.began or not journal.is_up_to_date(store, client):
        return False
    since = _indexed_until(index, journal)
    touched = None if since is None else journal.touched_after(since)
    if since is None or touched is None:
        return False
    new = [n for n, one in wanted.items() if one and not _is_known(index, n, one)]
    if not all(_follows(trees[name], journal, since) for name in new):
        return False
    names = _read_added(index.parts[1]) if len(index.parts) > 1 else {}
    try:
        for name in new:
            _read_directories(store.host_directory(client) / name, touched, names)
        if sum(map(_size, names.items())) > MAX_SIZE:
            return False
        name_index.write(
            name_index.added_path_of(store, client),
            ((path, names[path]) for path in _in_order(names)),
            wanted,
            base=index.made,
        )
    except RefusedError:
        return False
    return True


def _indexed_until(index: Files, journal: Journal) -> int | None:
    """At which transaction ``current`` was indexed; None if it was not, or is new."""
    identity = index.trees.get(CURRENT)
    if identity is None or identity[0] != journal.uuid:
        return None
    return int(identity[1])


def _is_known(index: Files, name: str, identity: Identity) -> bool:
    """True if a tree was indexed; sealing gives it another number (see lineage.py)."""
    known = index.trees.get(name)
    if known is None:
        return False
    return known == identity or (name != CURRENT and known[0] == identity[0])


def _follows(found: Subvolume, journal: Journal, since: int) -> bool:
    """True if a tree is ``current``, or shows what it was between then and now."""
    if found.uuid.hex() == journal.uuid:
        return True
    return found.parent_uuid.hex() == journal.uuid and found.made >= since


def _read_directories(top: Path, paths: Iterable[str], names: Names) -> None:
    """Add the names in directories beneath a tree's top. Raises RefusedError."""
    deadline = time.monotonic() + MAX_SECONDS
    size = 0
    for path in paths:
        directory = tree.open_beneath(top, path) if "\0" not in path else None
        if directory is None:
            continue
        try:
            with os.scandir(directory) as entries:
                found = names.setdefault(f"/{path}", set())
                for entry in entries:
                    found.add(entry.name)
                    size += len(entry.name)
                    if size > MAX_SIZE or time.monotonic() > deadline:
                        raise RefusedError("too much is new")
        finally:
            os.close(directory)


def _read_added(part: Part) -> Names:
    names: Names = {}
    path = "/"
    for raw in part.data[: part.end].split(b"\0")[:-1]:
        name = decode(raw)
        if name.startswith("/"):
            path = name
            names.setdefault(path, set())
        else:
            names.setdefault(path, set()).add(name)
    return names


def _in_order(names: Names) -> Iterator[str]:
    """Each path after all that are above it, these included, and before all others."""
    paths = {"/"}
    for path in names:
        above = path
        while above not in paths and above:
            paths.add(above)
            above = above.rpartition("/")[0]
    for path in paths:
        names.setdefault(path, set())
    return iter(sorted(paths, key=_parts))


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _size(item: tuple[str, set[str]]) -> int:
    path, names = item
    return len(path) + sum(map(len, names)) + len(names) + 1
