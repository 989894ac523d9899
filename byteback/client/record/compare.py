"""Compares a walk with an old record, block by block, as both go by."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from byteback.client.record.blocks import (
    DIRECTORY,
    LINKED,
    UNKNOWN,
    Block,
    order,
)

MAX_LINKED = 1_000_000  # files of several names in directories that have changed
_UNKNOWN = array("q", [UNKNOWN]).tobytes()


class Change(NamedTuple):
    """A name that is not what the record says: new, changed or gone.

    The types are None where there is nothing: now, or by the record.
    """

    path: str
    is_directory: bool | None
    was_directory: bool | None

    @property
    def is_gone(self) -> bool:
        """True if there is nothing of that name any more."""
        return self.is_directory is None

    @property
    def was_replaced(self) -> bool:
        """True if a directory has become something else, or the other way round."""
        both = (self.is_directory, self.was_directory)
        return None not in both and both[0] != both[1]


class Void:
    """Names of which, with all below them, the server's copy is unknown."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = frozenset(paths)
        self._names: dict[str, set[str]] = {}
        for path in self._paths:
            parent, _, name = path.rpartition("/")
            self._names.setdefault(parent, set()).add(name)

    def covers(self, path: str) -> bool:
        """True if ``path`` is one of the names, or below one."""
        while self._paths and path:
            if path in self._paths:
                return True
            path = path.rpartition("/")[0]
        return False

    def names_in(self, directory: str) -> Collection[str]:
        """Those right in a directory."""
        return self._names.get(directory, ())


class Comparison:
    """Find the changes since the record ``old`` was made.

    ``take`` gets each block of the walk, in order; then comes ``close``. ``changes`` is
    cut off after ``limit``, which ``is_cut`` tells.
    """

    def __init__(self, old: Iterable[Block], void: Collection[str], limit: int) -> None:
        self.changes: list[Change] = []
        self.is_cut = False
        self._old = iter(old)
        self._void = Void(void)
        self._limit = limit
        self._next: Block | None = None
        self._next_order = ""
        # Of each file with several names, in directories that differ: the hashes of its
        # names now, minus those of its names then. Zero is the same set of names.
        self._linked: dict[int, int] = {}
        self._changed_files: set[int] = set()
        self._advance()

    def take(self, live: Block) -> None:
        """Compare one directory. Raises DamagedError."""
        place = order(live.path)
        while self._next is not None and self._next_order < place:
            self._count_links(self._next, -1)  # gone, as the block above it told
            self._advance()
        if self._next is None or self._next_order > place:
            self._take_new(live)
            return
        old = self._next
        self._advance()
        is_void = bool(self._void.covers(live.path))
        if is_void or old.device != live.device:
            old = old._replace(ctimes=array("q", [UNKNOWN] * len(old.kinds)).tobytes())
        elif old == live and not self._is_unsure(live):
            return
        self._take_both(old, live)

    def close(self) -> None:
        """Read the old record to its end. Raises DamagedError."""
        while self._next is not None:
            self._count_links(self._next, -1)
            self._advance()

    @property
    def regrouped(self) -> frozenset[int]:
        """Inode numbers of files with several names that have to go with all of them.

        A directory that is renamed changes the names of the files in it and none of
        their ctimes. On several file systems one number may be several files: then all
        of them go.
        """
        moved = {inode for inode, sum_ in self._linked.items() if sum_}
        return frozenset(moved | self._changed_files)

    def _is_unsure(self, live: Block) -> bool:
        """True if some names have to go though they are as they were."""
        return _UNKNOWN in live.ctimes or bool(self._void.names_in(live.path))

    def _advance(self) -> None:
        self._next = next(self._old, None)
        if self._next is not None:
            place = order(self._next.path)
            if self._next_order > place:
                raise _disordered()
            self._next_order = place

    def _take_new(self, live: Block) -> None:
        for name, _, _, kind in live.entries():
            self._add(live.path, name, kind == DIRECTORY, None)
        self._count_links(live, 1)

    def _take_both(self, old: Block, live: Block) -> None:
        void = self._void.names_in(live.path)
        then = {
            name: (inode, UNKNOWN if name in void else ctime, kind)
            for name, inode, ctime, kind in old.entries()
        }
        for name, inode, ctime, kind in live.entries():
            before = then.pop(name, None)
            if before == (inode, ctime, kind) and ctime != UNKNOWN:
                continue
            was = None if before is None else before[2] == DIRECTORY
            self._add(live.path, name, kind == DIRECTORY, was)
            if kind == LINKED:
                self._changed_files.add(inode)
        for name, (_, _, kind) in then.items():
            self._add(live.path, name, None, kind == DIRECTORY)
        self._count_links(old, -1)
        self._count_links(live, 1)

    def _count_links(self, block: Block, sign: int) -> None:
        if LINKED not in block.kinds:
            return
        for name, inode, _, kind in block.entries():
            if kind == LINKED:
                own = hash((block.path, name))
                self._linked[inode] = self._linked.get(inode, 0) + sign * own
        if len(self._linked) > MAX_LINKED:
            self._linked.clear()
            self.is_cut = True

    def _add(
        self, directory: str, name: str, now: bool | None, was: bool | None
    ) -> None:
        if len(self.changes) >= self._limit:
            self.is_cut = True
            return
        path = f"{directory}/{name}" if directory else name
        self.changes.append(Change(path, now, was))


def names_of(files: frozenset[int], blocks: Iterable[Block]) -> Iterator[Change]:
    """Every name of ``files``, each of which has several, as a change of that name."""
    for block in blocks:
        if LINKED not in block.kinds:
            continue
        for name, inode, _, kind in block.entries():
            if kind == LINKED and inode in files:
                path = f"{block.path}/{name}" if block.path else name
                yield Change(path, False, False)


def _disordered() -> Exception:
    from byteback.client.record.blocks import DamagedError

    return DamagedError("its blocks are in another order")
