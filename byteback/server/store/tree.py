"""Reads directories and files of a client's tree by descriptors, never by long paths.

What is in a tree is the client's choice. No symbolic link is ever followed, and
nothing but plain files and directories is ever opened, so that nothing outside the
tree can be read and no fifo can make us wait.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Container, Generator, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from byteback.model.listing import Entry
from byteback.system.rsync import fake_super

PATH_MAX = 4096  # bytes; Linux follows no longer path or link
MAX_WAITING = 1 << 28  # bytes: paths of directories still to be looked into
PATH_SIZE = 64  # bytes that a path takes besides its characters
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK the opening of a fifo that took a file's place would wait.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


# What an inode's state is told by: inode number, ctime, mtime, size and mode.
Key = tuple[int, int, int, int, int]


# Names in a directory, and whether each is a directory itself.
Names = Mapping[str, bool]


def open_root(path: Path) -> int | None:
    """A descriptor of a tree's top directory, or None if it is gone or is none."""
    return _open(os.fspath(path), _DIRECTORY, None)


def open_directory(parent: int, name: str) -> int | None:
    """A descriptor of a directory in ``parent``, or None if it is none, or is gone."""
    return _open(name, _DIRECTORY, parent)


def open_beneath(top: Path, path: str) -> int | None:
    """A descriptor of a directory beneath ``top``; None if there is none there.

    No link is followed on the way, nor "..".
    """
    directory = open_root(top)
    for name in path.split("/") if path else ():
        if directory is None:
            break
        above = directory
        directory = open_directory(above, name) if name != ".." else None
        os.close(above)
    return directory


def status(parent: int, name: str) -> os.stat_result | None:
    """The status of a name in ``parent`` itself, links included; None if gone."""
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError:
        return None


def key_of(found: os.stat_result) -> Key:
    """The identity that two states of a file or directory share if it did not change.

    A snapshot keeps its origin's inode numbers, and every change sets the ctime, which
    no program can set at will.
    """
    return (
        found.st_ino,
        found.st_ctime_ns,
        found.st_mtime_ns,
        found.st_size,
        found.st_mode,
    )


def list_directory(fd: int | None, only: Container[str] | None) -> Names:
    """The names in a directory that was just opened, none in one that is gone.

    With ``only`` they are those in it, and those of directories.
    """
    if fd is None:
        return {}
    with os.scandir(fd) as entries:
        if only is None:
            return {e.name: e.is_dir(follow_symlinks=False) for e in entries}
        return {
            e.name: is_directory
            for e in entries
            if (is_directory := e.is_dir(follow_symlinks=False)) or e.name in only
        }


class Found(NamedTuple):
    """A name somewhere below a tree's top, while its directory is open."""

    directory: int  # file descriptor
    path: str  # beneath the top
    entry: os.DirEntry[str]


def entries_below(top: Path) -> Generator[Found, None, None]:
    """All names below a tree's top; no link is followed.

    They may be removed meanwhile, which hides no other name (readdir(3p)). Nothing is
    remembered but directories: how many names there are, a client decides.
    Raises OverflowError if these are too many, OSError if the top cannot be read.
    """
    root = os.open(top, _DIRECTORY)
    try:
        waiting, size = [""], PATH_SIZE
        while waiting:
            path = waiting.pop()
            size -= len(path) + PATH_SIZE
            with contextlib.suppress(OSError):  # closed to us, or a path too long
                for found in _look_into(root, path):
                    yield found
                    if found.entry.is_dir(follow_symlinks=False):
                        waiting.append(found.path)
                        size += len(found.path) + PATH_SIZE
                    if size > MAX_WAITING:
                        raise OverflowError("there are too many directories")
    finally:
        os.close(root)


def _look_into(root: int, path: str) -> Iterator[Found]:
    directory = os.open(path or ".", _DIRECTORY, dir_fd=root)
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                below = f"{path}/{entry.name}" if path else entry.name
                yield Found(directory, below, entry)
    finally:
        os.close(directory)


def size_below(parent: int, name: str, step: Callable[[], None]) -> int:
    """Bytes that all files below a directory take; ``step`` is called for each one.

    Not recursive: how deep a tree is, its client decides.
    """
    total = 0
    stack = [(os.dup(parent), [name])]
    try:
        while stack:
            fd, names = stack[-1]
            if not names:
                os.close(stack.pop()[0])
                continue
            below = open_directory(fd, names.pop())
            if below is None:
                continue
            stack.append((below, []))
            step()
            with os.scandir(below) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        stack[-1][1].append(entry.name)
                    else:
                        total += size_of(entry.stat(follow_symlinks=False))
    finally:
        for fd, _ in stack:
            os.close(fd)
    return total


def size_of(found: os.stat_result) -> int:
    """Bytes that a file takes, without its holes."""
    return min(found.st_size, found.st_blocks * 512)


def read_entry(
    snapshot: str, path: str, parent: int, name: str, found: os.stat_result
) -> Entry:
    """The entry for a name in ``parent`` whose status is ``found``.

    Owner, mode and device are those that rsync --fake-super noted, else the file's
    own. ``name`` may be "." for the directory itself.
    """
    if stat.S_ISLNK(found.st_mode):  # a real one, which no backup of ours makes
        return _entry(snapshot, path, found, None, _read_link(parent, name))
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        return _entry(snapshot, path, found, None, None)
    fd = _open(name, _FILE, parent)
    if fd is None:
        return _entry(snapshot, path, found, None, None)
    try:
        opened = os.fstat(fd)
        noted = fake_super.read_fake_stat(fd)
        if noted is not None and stat.S_ISDIR(noted.mode) != stat.S_ISDIR(
            opened.st_mode
        ):
            noted = None
        target = None
        if noted is not None and stat.S_ISLNK(noted.mode):
            target = os.read(fd, PATH_MAX).decode("utf-8", "surrogateescape")
        return _entry(snapshot, path, opened, noted, target)
    finally:
        os.close(fd)


def _entry(
    snapshot: str,
    path: str,
    found: os.stat_result,
    noted: fake_super.FakeStat | None,
    target: str | None,
) -> Entry:
    mode = noted.mode if noted else found.st_mode
    device = None
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        own = (os.major(found.st_rdev), os.minor(found.st_rdev))
        device = noted.device if noted else own
    return Entry(
        snapshot,
        path,
        mode,
        found.st_size,
        noted.uid if noted else found.st_uid,
        noted.gid if noted else found.st_gid,
        found.st_mtime_ns,
        target,
        device,
    )


def _read_link(parent: int, name: str) -> str:
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError:
        return ""


def _open(name: str, flags: int, parent: int | None) -> int | None:
    try:
        return os.open(name, flags, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except OSError as error:
        if error.errno in _SKIPPED:
            return None
        raise


# A link (O_NOFOLLOW), a device without a driver, a socket, a name that is too long.
_SKIPPED = frozenset(
    {errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ENAMETOOLONG, errno.ESTALE}
)
