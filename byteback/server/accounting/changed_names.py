"""Counts a snapshot's names from an earlier one's, by what changed since (D49).

Nothing is taken from what rsync said but where to look: the names are counted in both
snapshots. Whatever does not fit together counts as unknown.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from byteback.server.accounting import bounded_walk, ledger
from byteback.server.store import change_journal, tree
from byteback.server.store.layout import Store
from byteback.system.btrfs import subvolume
from byteback.system.btrfs.subvolume import Subvolume

DIFFERENCE_S = 10.0  # where that is not enough a walk is no slower
MAX_EARLIER = 5  # snapshots that are tried


class _UnknownError(Exception):
    """What was found does not fit what was told, or takes too long."""


class _Listing(NamedTuple):
    """A directory, by how many names it has and which of them are directories."""

    names: int
    directories: Collection[str]


def count_by_changes(store: Store, client: str, name: str) -> int | None:
    """How many names a snapshot has, by an earlier one that was counted.

    None if it is not known what has changed between any of those and this one.
    """
    journal = change_journal.read(store, client)
    if journal is None:
        return None
    top = store.host_directory(client) / name
    new = _read_frozen(top)
    if new is None or new.parent_uuid.hex() != journal.uuid:
        return None
    is_told = journal.tells_of(new) or journal.is_up_to_date(store, client)
    if not is_told:
        return None
    for earlier, names in ledger.counted(store, client, journal.began, MAX_EARLIER):
        old_top = store.host_directory(client) / earlier
        old = _read_frozen(old_top)
        if old is None or old.parent_uuid != new.parent_uuid:
            continue
        touched = journal.touched_after(min(old.made, new.made))
        if touched is not None:
            with contextlib.suppress(_UnknownError, OSError):
                return names + _difference(old_top, top, touched)
    return None


def _difference(old: Path, new: Path, touched: Collection[str]) -> int:
    """How many names more there are in ``new``. Raises _UnknownError."""
    deadline = time.monotonic() + DIFFERENCE_S
    difference = 0
    whole: set[str] = set()  # directories that came or went with all below them
    for path in sorted(touched, key=lambda path: path.split("/")):
        if not whole.isdisjoint(_above(path)):
            continue
        before, after = (_look_into(top, path, deadline) for top in (old, new))
        if before is None and after is None:
            continue  # it came and went
        if before is None or after is None:
            raise _UnknownError
        difference += after.names - before.names
        for top, here, there, sign in (
            (old, before, after, -1),
            (new, after, before, 1),
        ):
            for name in here.directories:
                if name not in there.directories:
                    below = f"{path}/{name}" if path else name
                    difference += sign * _count_below(top / below, deadline)
                    whole.add(below)
    return difference


def _above(path: str) -> Iterator[str]:
    """A path and all directories above it but the top."""
    while path:
        yield path
        path = path.rpartition("/")[0]


def _look_into(top: Path, path: str, deadline: float) -> _Listing | None:
    directory = tree.open_beneath(top, path) if "\0" not in path else None
    if directory is None:
        return None
    try:
        count = length = 0
        names = set()
        with os.scandir(directory) as entries:
            for entry in entries:
                count += 1
                if entry.is_dir(follow_symlinks=False):
                    names.add(entry.name)
                    length += len(entry.name)
                if length > bounded_walk.MAX_WAITING or time.monotonic() >= deadline:
                    raise _UnknownError
        return _Listing(count, names)
    finally:
        os.close(directory)


def _count_below(directory: Path, deadline: float) -> int:
    left = max(0.0, deadline - time.monotonic())
    count, is_all = bounded_walk.count(os.fspath(directory), left)
    if not is_all:
        raise _UnknownError
    return count


def _read_frozen(path: Path) -> Subvolume | None:
    """A snapshot's facts; None if it is gone, or may be written to."""
    fd = tree.open_root(path)
    if fd is None:
        return None
    try:
        # A plain directory would give what is known of the subvolume around it.
        if os.fstat(fd).st_ino != subvolume.TOP_INODE or not subvolume.is_read_only(fd):
            return None
        return subvolume.read(fd)
    except OSError:
        return None
    finally:
        os.close(fd)
