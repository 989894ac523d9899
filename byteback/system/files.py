"""Files that are replaced whole or not at all, and some that need no disc."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import IO

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_AT_FDCWD = -100
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2  # linux/fs.h


def in_memory() -> IO[bytes]:
    """A file of no name that needs no disc: that may be full. Raises OSError."""
    return os.fdopen(os.memfd_create("byteback"), "w+b")


def open_regular(path: Path) -> int:
    """A descriptor for reading a regular file. Raises OSError for anything else.

    The store's user could put a fifo in the place of a note, on which root would wait
    for ever (fifo(7)), or a link.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return fd


def read_regular(path: Path, limit: int) -> bytes:
    """The first ``limit`` bytes of a regular file; raises as open_regular."""
    with os.fdopen(open_regular(path), "rb") as file:
        return file.read(limit)


def write_atomically(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Put ``content`` at ``path`` so that no reader and no crash sees half of it.

    A file that is there keeps its mode and owner; a link to a file stays a link.
    Raises OSError.
    """
    target = Path(os.path.realpath(path))
    unfinished = target.with_name(f".{target.name}.{os.urandom(4).hex()}")
    fd = os.open(unfinished, _NEW, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            _take_over_attributes(file.fileno(), target, mode)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
    sync_directory(target.parent)


def exchange(one: Path, other: Path) -> None:
    """Give two names to each other's directories or files in one step.

    No reader and no crash sees either missing (renameat2(2), Linux 3.15).
    Raises OSError.
    """
    _rename(_AT_FDCWD, os.fspath(one), os.fspath(other), _RENAME_EXCHANGE)


def rename_within(directory: int, name: str, wanted: str) -> None:
    """Give what is at ``name`` in an open directory its ``wanted`` name.

    What has that name already gets ``name`` for it: nothing is ever replaced.
    Raises OSError.
    """
    try:
        _rename(directory, name, wanted, _RENAME_NOREPLACE)
    except FileExistsError:
        _rename(directory, name, wanted, _RENAME_EXCHANGE)


def rename_to_free(directory: int, name: str, wanted: str) -> None:
    """Give what is at ``name`` in an open directory its ``wanted`` name.

    Raises FileExistsError if anything has that name, else OSError.
    """
    _rename(directory, name, wanted, _RENAME_NOREPLACE)


def mount_of(fd: int) -> int:
    """The number of the mount that an open file is on, see proc_pid_fdinfo(5)."""
    text = Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii")
    words = text.split()
    return int(words[words.index("mnt_id:") + 1])


def sync_file_system(fd: int) -> None:
    """Have all that was written to the file system of an open file reach its disc.

    Raises OSError if a write failed there since the file was opened, in the background
    too (syncfs(2), Linux 5.8). btrfs loses the data of such a write and goes on.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def sync_directory(path: Path) -> None:
    """Make the names in a directory survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _rename(directory: int, one: str, other: str, flags: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if libc.renameat2(directory, names[0], directory, names[1], flags):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), one)


def _take_over_attributes(fd: int, target: Path, mode: int) -> None:
    try:
        status = target.stat()
    except FileNotFoundError:
        os.fchmod(fd, mode)
        return
    os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, status.st_mode & 0o7777)
