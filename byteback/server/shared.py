"""Keeps what is one file in ``current`` from standing for several of the client (D34).

rsync --inplace writes into whatever a name leads to. Where two names were one file at
the client and are two now, what it writes to one of them is in the other as well, and
nobody is told: what a transfer has changed must be looked at.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from byteback import log
from byteback.server.doubt import DOUBTED_NS

MAX_SHARED = 1 << 20  # files with several names of one client; some 100 MB
MAX_WAITING = 1 << 24  # characters: paths of directories still to be looked into

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Shared = dict[int, int]  # by inode number, a hash of what is to be known of the file


class _Name(NamedTuple):
    """One of the names of a file that has several."""

    directory: int  # file descriptor
    name: str
    status: os.stat_result


def note(tree: Path, timeout_s: float) -> Shared:
    """The files of ``tree`` that have several names, as they are before a transfer.

    The client waits for this: what is not reached in that time is not looked after,
    and the log says so. The same goes for what no client has in earnest.
    """
    deadline = time.monotonic() + timeout_s
    found: Shared = {}
    try:
        for one in _names(tree):
            if one.status.st_ino not in found:
                found[one.status.st_ino] = _state(one)
            if len(found) > MAX_SHARED or time.monotonic() > deadline:
                raise OverflowError("there are too many files")
    except (OSError, OverflowError) as error:
        log.audit("WARNING", what="files with several names", tree=tree, reason=error)
    return found


def separate_changed(tree: Path, before: Shared) -> int:
    """Make each file that a transfer has changed, and that had several names, one name.

    Which of them the change was meant for only the client knows. The others go, and
    the one that stays is doubted: the client's next transfer brings them all, and of
    those that are still one with it only the names. Returns how many files there were.
    Raises OSError.
    """
    kept: dict[int, bool] = {}  # by inode number, whether it stays as it is
    for one in _names(tree) if before else ():
        number = one.status.st_ino
        if number not in before:
            continue  # made by this very transfer, from what the client said
        if number not in kept:
            kept[number] = _state(one) == before[number]
            if not kept[number]:
                times = (one.status.st_atime_ns, DOUBTED_NS)
                os.utime(
                    one.name, ns=times, dir_fd=one.directory, follow_symlinks=False
                )
        elif not kept[number]:
            os.unlink(one.name, dir_fd=one.directory)
    return sum(not stays for stays in kept.values())


def _names(tree: Path) -> Iterator[_Name]:
    """All names of plain files that have several; no link is followed.

    Each directory is read to its end first, so that names may be removed meanwhile.
    """
    root = os.open(tree, _DIRECTORY)
    try:
        waiting, length = ["."], 1
        while waiting:
            path = waiting.pop()
            length -= len(path)
            with contextlib.suppress(OSError):  # closed to us, or a path too long
                directory = os.open(path, _DIRECTORY, dir_fd=root)
                try:
                    below, names = _look_into(directory)
                    yield from names
                finally:
                    os.close(directory)
                waiting += [f"{path}/{name}" for name in below]
                length += sum(len(path) + 1 + len(name) for name in below)
            if length > MAX_WAITING:
                raise OverflowError("there are too many directories")
    finally:
        os.close(root)


def _look_into(directory: int) -> tuple[list[str], list[_Name]]:
    """Names of the directories in one, and of the files that have more names."""
    below, names = [], []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.name)
            elif entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                if status.st_nlink > 1:
                    names.append(_Name(directory, entry.name, status))
    return below, names


def _state(one: _Name) -> int:
    """A hash of what rsync may have changed of a file, its attributes included."""
    attributes = {}
    with contextlib.suppress(OSError):  # closed to us, as to rsync
        fd = os.open(one.name, _FILE, dir_fd=one.directory)
        try:
            attributes = {name: os.getxattr(fd, name) for name in os.listxattr(fd)}
        finally:
            os.close(fd)
    status = one.status
    words = (status.st_mtime_ns, status.st_size, status.st_mode)
    return hash((words, frozenset(attributes.items())))
