"""Finds the processes that have a file open."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

FileNumber = tuple[int, int]  # device and inode: what tells a file from all others


def number_of(path: Path) -> FileNumber:
    """The number of the file at ``path``. Raises OSError."""
    found = path.stat()
    return found.st_dev, found.st_ino


def holders(files: Collection[FileNumber]) -> Iterator[Path]:
    """The directory in /proc of each process but this one that has one of them open.

    Those of other users are left out, but for root.
    """
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # ended meanwhile, or not ours
                if _has_open(entry / "fd", files):
                    yield entry


def _has_open(descriptors: Path, files: Collection[FileNumber]) -> bool:
    with os.scandir(descriptors) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found = entry.stat()
                if (found.st_dev, found.st_ino) in files:
                    return True
    return False
