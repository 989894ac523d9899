"""Walks through what may be sent, writes a new record of it and compares the old one.

A directory is opened beneath the one above it and never through a link, so that no user
can lead the walk elsewhere. Mount points that are not of this machine's own discs are
named and never touched: what is mounted there may be silent.
"""

from __future__ import annotations

import os
import stat
import time
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from byteback.client.record import blocks
from byteback.client.record.blocks import DIRECTORY, LINKED, PLAIN, UNKNOWN, Block
from byteback.client.record.compare import Comparison
from byteback.system import kernel_files

RACY_NS = 2_000_000_000  # before the walk: what changed so late may change again unseen
SECOND_NS = 1_000_000_000
MAX_DEPTH = 500  # each level is an open file
MAX_PATH = 4000  # characters; rsync goes no further than 4096 bytes
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class UnfitError(Exception):
    """No record can be made of this tree; the reason is for the log."""


class Domain(NamedTuple):
    """The limits of a walk: the sources, but for what is mounted from elsewhere."""

    sources: Collection[str]  # absolute, none of them a link or below one
    foreign: Collection[str]  # absolute mount points
    excluded: Collection[str] = ()  # directories below "/", as in a Block

    def below(self) -> Mapping[str, Collection[str]] | None:
        """The only names that count in each directory above a source; None for all."""
        if "/" in self.sources:
            return None
        names: dict[str, set[str]] = {}
        tops = {source.strip("/") for source in self.sources}
        for top in tops:
            path = top
            while path:
                parent, _, name = path.rpartition("/")
                names.setdefault(parent, set()).add(name)
                path = parent
        # What is below a source counts whole, another source above it included.
        return {
            path: found for path, found in names.items() if not _is_within(path, tops)
        }


def _is_within(path: str, tops: Collection[str]) -> bool:
    return any(path == top or path.startswith(f"{top}/") for top in tops)


class Top(NamedTuple):
    """The directory "/" itself, which is in no block."""

    inode: int
    ctime: int


NOTHING = Top(0, UNKNOWN)


@dataclass
class Walked:
    """A walk that has come to its end."""

    started: int  # nanoseconds since 1970
    top: Top = NOTHING
    names: int = 0
    directories: int = 0
    size: int = 0  # bytes of all that is no directory, each name counted as rsync does
    seen_excluded: set[str] = field(default_factory=set)


class _Frame(NamedTuple):
    """A directory whose subdirectories are being walked."""

    fd: int
    path: str
    left: Iterator[tuple[str, int]]  # names and inode numbers


class Walk:
    """One walk. ``write`` takes each new block, in order."""

    def __init__(
        self,
        domain: Domain,
        write: Callable[[Block], None],
        comparison: Comparison | None,
        root: str = "/",
    ) -> None:
        self._write = write
        self._comparison = comparison
        self._root = root
        self._only = domain.below()
        self._excluded = domain.excluded
        self._foreign = _by_parent(domain.foreign)
        self._devices: dict[int, bool] = {}  # whether each tells all changes
        self._precise: set[int] = set()  # of these, those with fractions of a second
        self.result = Walked(time.time_ns())
        self._limit = self.result.started - RACY_NS

    def run(self) -> Walked:
        """Walk to the end. Raises UnfitError; OSError where a disc fails."""
        fd = os.open(self._root, _DIRECTORY)
        stack: list[_Frame] = []
        try:
            status = os.fstat(fd)
            stack.append(self._enter(fd, "", status))
            ctimes = self._known(array("q", [status.st_ctime_ns]), status.st_dev)
            self.result.top = Top(status.st_ino, ctimes[0])
            while stack:
                self._step(stack)
        finally:
            for frame in stack:
                os.close(frame.fd)
        return self.result

    def _step(self, stack: list[_Frame]) -> None:
        frame = stack[-1]
        for name, inode in frame.left:
            path = f"{frame.path}/{name}" if frame.path else name
            if path in self._excluded:
                self.result.seen_excluded.add(path)
                continue
            fd = _open(frame.fd, name, path)
            if fd is None:
                continue
            status = os.fstat(fd)
            if status.st_ino != inode:
                os.close(fd)
                raise UnfitError(f"{path!r} was replaced meanwhile")
            if len(stack) >= MAX_DEPTH or len(path) > MAX_PATH:
                os.close(fd)
                raise UnfitError("its directories are nested too deeply")
            stack.append(self._enter(fd, path, status))
            return
        os.close(stack.pop().fd)

    def _enter(self, fd: int, path: str, own: os.stat_result) -> _Frame:
        """Look at what is in a directory; ``fd`` is closed if that fails."""
        try:
            is_stable = self._look_at_device(fd, own.st_dev)
            is_above = self._only is not None and path in self._only
            if not (is_stable or is_above):
                raise UnfitError(f"the file system at '/{path}' tells no changes")
            return _Frame(fd, path, iter(self._look(fd, path, own)))
        except BaseException:
            os.close(fd)
            raise

    def _look_at_device(self, fd: int, device: int) -> bool:
        """True if ctimes tell all changes from now on.

        What a program writes through a mapping sets a file's times when it touches a
        clean page, and never again before that page is written to the disc.
        """
        if device not in self._devices:
            self._devices[device] = kernel_files.has_stable_inodes(fd)
            if self._devices[device]:
                kernel_files.sync_file_system(fd)
        return self._devices[device]

    def _known(self, ctimes: array[int], device: int) -> array[int]:
        """ctimes as they may be recorded.

        One of the last seconds, or of the future, may stay as it is while the file goes
        on changing. Where a file system knows whole seconds alone, the same time can
        come again after the clock was set back.
        """
        if not self._devices[device]:
            return array("q", [UNKNOWN] * len(ctimes))
        fractions = [ctime % SECOND_NS for ctime in ctimes]
        if device not in self._precise and any(fractions):
            self._precise.add(device)
        is_precise = device in self._precise
        if (is_precise or 0 not in fractions) and max(ctimes, default=0) < self._limit:
            return ctimes
        return array(
            "q",
            [
                ctime
                if ctime < self._limit and (is_precise or ctime % SECOND_NS)
                else UNKNOWN
                for ctime in ctimes
            ],
        )

    def _look(self, fd: int, path: str, own: os.stat_result) -> list[tuple[str, int]]:
        """Write a directory's block; its subdirectories and their inode numbers."""
        foreign = self._foreign.get(path, ())
        device = own.st_dev
        found: list[str] = []
        inodes, ctimes, kinds = array("Q"), array("q"), bytearray()
        below: list[tuple[str, int]] = []
        size = 0
        for name in self._names(fd, path):
            if name in foreign:
                found.append(name)
                inodes.append(0)
                ctimes.append(UNKNOWN)
                kinds.append(DIRECTORY)
                continue
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            found.append(name)
            inodes.append(status.st_ino)
            ctimes.append(status.st_ctime_ns)
            if status.st_mode & 0o170000 == stat.S_IFDIR:
                kinds.append(DIRECTORY)
                below.append((name, status.st_ino))
            else:
                kinds.append(LINKED if status.st_nlink > 1 else PLAIN)
                size += status.st_size
                if status.st_dev != device:  # a file is mounted over it
                    ctimes[-1] = UNKNOWN
        self.result.size += size
        joined = blocks.join_names(found)
        self._take(
            Block(
                *(path, device, own.st_ino, joined),
                *(inodes.tobytes(), ctimes.tobytes(), bytes(kinds)),
            ),
            self._known(ctimes, device),
        )
        return below

    def _names(self, fd: int, path: str) -> list[str]:
        names = os.listdir(fd)
        if len(names) > blocks.MAX_NAMES:
            raise UnfitError(f"there are too many names in '/{path}'")
        only = self._only.get(path) if self._only is not None else None
        if only is not None:
            names = [name for name in names if name in only]
        elif self._only is not None and not path:
            names = []
        names.sort()
        return names

    def _take(self, live: Block, known: array[int]) -> None:
        if self._comparison is not None:
            self._comparison.take(live)
        self._write(live._replace(ctimes=known.tobytes()))
        self.result.names += len(live.kinds)
        self.result.directories += 1


def _by_parent(paths: Collection[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in paths:
        parent, _, name = path.strip("/").rpartition("/")
        found.setdefault(parent, set()).add(name)
    return found


def _open(parent: int, name: str, path: str) -> int | None:
    """A descriptor of a subdirectory; None if it is gone."""
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return None
    except (NotADirectoryError, OSError) as error:
        raise UnfitError(f"cannot read '/{path}': {error.strerror}") from None
