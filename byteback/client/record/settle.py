"""Looks after a transfer which directories were perhaps moved while it ran.

A directory that is moved away and back takes all in it along, whose ctimes stay. rsync
may have looked for it in between. Being renamed sets a directory's own ctime and that
of the one above it: it can have happened only where both are of that time.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from byteback.system import mounts


def moved(
    directories: Iterable[tuple[str, int]], since: int, root: str = "/"
) -> Iterator[str]:
    """Of directories and their inode numbers those that may have moved ``since`` then.

    In nanoseconds since 1970. Each comes after the one above it, which must be among
    them; what is below one that may have moved is not told.
    """
    changed = {""}
    with contextlib.suppress(OSError):
        if Path(root).stat().st_ctime_ns < since:
            changed.clear()
    away: str | None = None
    for path, inode in directories:
        if not path or (away is not None and path.startswith(away)):
            continue
        try:
            status = os.lstat(_place(root, path))
        except OSError:
            status = None
        if status is not None and status.st_ctime_ns < since:
            if status.st_ino == inode:
                continue
        elif status is not None:
            changed.add(path)
            if status.st_ino == inode and path.rpartition("/")[0] not in changed:
                continue
        away = f"{path}/"
        yield path


def inodes_of(
    paths: Iterable[str], root: str = "/", foreign: Collection[str] = ()
) -> Mapping[str, int]:
    """The directories above ``paths``, sorted as a walk is, and their inode numbers.

    A path that ends in a slash is one itself. 0 stands for what is gone. ``foreign``
    mount points, absolute paths, are passed over: they may be silent.
    """
    above: set[str] = set()
    for path in paths:
        parent = path.removeprefix("./").rpartition("/")[0]
        while parent and parent not in above:
            above.add(parent)
            parent = parent.rpartition("/")[0]
    above.difference_update(point.strip("/") for point in foreign)
    found = {}
    for path in sorted(above, key=lambda one: one.replace("/", "\0")):
        found[path] = 0
        with contextlib.suppress(OSError):
            found[path] = os.lstat(_place(root, path)).st_ino
    return found


def _place(root: str, path: str) -> str:
    return f"{root.rstrip('/')}/{path}"


class MountWatch:
    """Tells whether anything was mounted or unmounted here (proc_pid_mountinfo(5))."""

    def __init__(self) -> None:
        self._file = mounts.TABLE.open("rb")
        self._poll = select.poll()
        self._poll.register(self._file, select.POLLPRI)
        self._file.read()
        self._poll.poll(0)

    def has_changed(self) -> bool:
        """True if the table of mounts has changed since the watch began."""
        return bool(self._poll.poll(0))

    def close(self) -> None:
        """Stop watching."""
        self._file.close()
