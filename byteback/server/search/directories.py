"""One directory in all trees at once, looked at no more than needed (D28).

Snapshots of one subvolume are states of it in time, and a snapshot keeps its origin's
inode numbers. Skipping is safe because no program can set a ctime. Writing to a file or
its attributes, adding, removing or renaming an entry of a directory, and renaming the
file or directory itself all set it (fs/btrfs/inode.c, btrfs_rename). So an inode with
the same ctime in two states was the same in all between, in the same directory and by
the same name.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence, Set

from byteback.server.search.matching import Progress
from byteback.server.store import tree
from byteback.server.store.tree import Key, Names

# Trees by rank, 0 being the newest copy; a chain is in the order of time.
Chain = Sequence[int]
# The status of one name by position in a chain; None where there is none.
Known = dict[int, os.stat_result | None]


class Run:
    """Neighbours in a chain in which a path is the same inode, unchanged.

    ``first`` and ``last`` are positions in the chain, both included; ``key`` is what
    they have in common. One is made for each directory: that has to be fast.
    """

    __slots__ = ("chain", "first", "key", "last", "status")

    def __init__(
        self, chain: Chain, first: int, last: int, status: os.stat_result, key: Key
    ) -> None:
        self.chain, self.first, self.last = chain, first, last
        self.status, self.key = status, key

    @property
    def ranks(self) -> list[int]:
        """The trees, the newest copy first."""
        return sorted(self.chain[self.first : self.last + 1])

    @property
    def is_directory(self) -> bool:
        """True if the path is one there."""
        return stat.S_ISDIR(self.status.st_mode)

    def goes_on_with(self, other: Run) -> bool:
        """True if ``other`` is the same and comes next."""
        return (
            self.chain is other.chain
            and other.first == self.last + 1
            and self.key == other.key
        )


class Directory:
    """One directory in all trees that have it.

    ``path`` is "" for the root, else "/etc"; ``opened`` are its descriptors by rank.
    """

    __slots__ = ("_segments", "above", "name", "opened", "path", "progress", "runs")

    def __init__(
        self,
        path: str,
        name: str,
        progress: Progress,
        runs: list[Run],
        above: Directory | None,
    ) -> None:
        self.path, self.name, self.progress = path, name, progress
        self.runs, self.above = runs, above
        self.opened: dict[int, int | None] = {}
        self._segments: list[list[Run]] | None = None

    def descriptor(self, rank: int) -> int | None:
        """The directory in one tree; None if it is gone. The root's are all open."""
        if rank in self.opened:
            return self.opened[rank]
        way = [self]
        place = self.above
        while place is not None and rank not in place.opened:
            way.append(place)
            place = place.above
        fd = None if place is None else place.opened[rank]
        for step in reversed(way):
            fd = None if fd is None else tree.open_directory(fd, step.name)
            step.opened[rank] = fd
        return fd

    def status(self, rank: int, name: str) -> os.stat_result | None:
        """The status of a name in one tree; None if it is not there."""
        fd = self.descriptor(rank)
        return None if fd is None else tree.status(fd, name)

    def listings(self) -> dict[Key, Names]:
        """The names that the patterns care for, by the key of each run.

        To be called once.
        """
        found: dict[Key, Names] = {}
        for run in self.runs:
            if run.key not in found:
                found[run.key] = self.listing(run)
        return found

    def listing(self, run: Run) -> Names:
        """The names that the patterns care for in one run, or in one with its key.

        They are read in its oldest tree: a snapshot, while ``current`` may be in the
        middle of a backup. To be called once.
        """
        fd = self.descriptor(run.chain[run.last])
        return tree.list_directory(fd, self.progress.only)

    @property
    def segments(self) -> list[list[Run]]:
        """Neighbouring runs in which this is one directory, though names changed."""
        if self._segments is None:
            self._segments = _segments(self.runs)
        return self._segments

    def close(self) -> None:
        """Close what is open; more than once does no harm."""
        while self.opened:
            _, fd = self.opened.popitem()
            if fd is not None:
                os.close(fd)


def _segments(runs: Sequence[Run]) -> list[list[Run]]:
    found: list[list[Run]] = []
    for run in runs:
        before = found[-1][-1] if found else None
        if (
            before is not None
            and before.chain is run.chain
            and before.last + 1 == run.first
            and before.status.st_ino == run.status.st_ino
        ):
            found[-1].append(run)
        else:
            found.append([run])
    return found


def locate(place: Directory, name: str, holders: Set[Run] | None) -> list[Run]:
    """Find ``name`` in ``place``, run by run, reading as few trees as possible.

    ``holders`` are the runs of ``place`` that have the name, None if that is unknown.
    """
    found: list[Run] = []
    if holders is not None and not holders:
        return found
    for segment in [place.runs] if len(place.runs) == 1 else place.segments:
        known: Known = {}
        whole = _whole(place, name, segment, known)
        if whole is not None:
            append(found, whole)
            continue
        for run in segment:
            if holders is None or run in holders:
                for piece in _pieces(place, name, run, known):
                    append(found, piece)
    return found


def append(runs: list[Run], run: Run) -> None:
    """Add what comes next; what goes on from the last one becomes one with it."""
    if runs and runs[-1].goes_on_with(run):
        before = runs.pop()
        run = Run(run.chain, before.first, run.last, before.status, run.key)
    runs.append(run)


def _whole(
    place: Directory, name: str, segment: Sequence[Run], known: Known
) -> Run | None:
    """One run over a segment, if both its ends say that nothing changed.

    What was looked at is in ``known`` then.
    """
    chain, first, last = segment[0].chain, segment[0].first, segment[-1].last
    newer = known[first] = place.status(chain[first], name)
    if newer is None:
        return None
    key = tree.key_of(newer)
    if first != last:
        older = known[last] = place.status(chain[last], name)
        if older is None or tree.key_of(older) != key:
            return None
    return Run(chain, first, last, newer, key)


def _pieces(place: Directory, name: str, run: Run, known: Known) -> Iterator[Run]:
    """Runs of ``name`` within a run of its directory, in which no name changed."""
    pending = [(run.first, run.last)]
    while pending:
        first, last = pending.pop()
        for position in (first, last):
            if position not in known:
                known[position] = place.status(run.chain[position], name)
        newer, older = known[first], known[last]
        if newer is None and older is None:
            continue
        if newer is not None and older is not None:
            key = tree.key_of(newer)
            if key == tree.key_of(older):
                yield Run(run.chain, first, last, newer, key)
                continue
        middle = (first + last) // 2
        pending += [(middle + 1, last), (first, middle)]
