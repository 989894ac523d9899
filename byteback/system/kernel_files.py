"""Facts of the kernel about open files and file systems, beyond Python's os."""

from __future__ import annotations

import ctypes
import os

# f_type of statfs(2): local discs whose inode numbers stay, and whose ctimes no program
# can set. Overlays change numbers when a file is copied up; network file systems and
# FUSE tell what another machine or program says.
_STABLE = frozenset(
    {
        0xEF53,  # ext2, ext3, ext4
        0x58465342,  # XFS
        0x9123683E,  # btrfs
        0xF2F52010,  # F2FS
    }
)
_STATFS_SIZE = 256  # bytes, more than struct statfs has on any architecture


def has_stable_inodes(fd: int) -> bool:
    """True if a file keeps its inode number, and each change sets its ctime."""
    buffer = ctypes.create_string_buffer(_STATFS_SIZE)
    _check(_libc().fstatfs(fd, buffer))
    kind = ctypes.c_ulong.from_buffer(buffer).value
    return kind in _STABLE


def sync_file_system(fd: int) -> None:
    """Write all that is dirty in the file system of an open file (syncfs(2))."""
    _check(_libc().syncfs(fd))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
