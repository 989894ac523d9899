"""Reads the facts that btrfs has of a subvolume: its origin and its times."""

from __future__ import annotations

import fcntl
import os
import struct
from typing import NamedTuple

TOP_INODE = 256  # of the top directory of each subvolume
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# BTRFS_IOC_GET_SUBVOL_INFO of linux/btrfs.h (Linux 4.18), which needs no privilege:
# treeid, name, parent_id, dirid, generation, flags, three uuids, four transaction
# numbers, four times.
_GET_SUBVOL_INFO = 0x81F8943C
_SIZE = 504
# BTRFS_IOC_SUBVOL_GETFLAGS and _SETFLAGS, and BTRFS_SUBVOL_RDONLY.
_GET_FLAGS = 0x80089419
_SET_FLAGS = 0x4008941A
_FLAGS = struct.Struct("=Q")
_READ_ONLY = 1 << 1
# BTRFS_IOC_SNAP_CREATE_V2 and its argument: descriptor, unused, flags, unused, name.
_SNAPSHOT = 0x50009417
_SNAPSHOT_FORM = struct.Struct("=qQQ32s4040s")
_FORM = struct.Struct("=Q256x8x8x8x8x16s16s16xQQ16xQI")


class Subvolume(NamedTuple):
    """A subvolume, in the terms of btrfs-subvolume(8)."""

    uuid: bytes
    parent_uuid: bytes  # of what it is a snapshot of; all zero for none
    changed: int  # number of the last transaction that changed it
    made: int  # number of the one that made it
    number: int  # of the subvolume itself, never given to another one
    changed_at: float  # when something in it changed last, in seconds since 1970

    @property
    def is_untouched(self) -> bool:
        """True if it is still what was snapshotted, writable or not."""
        return any(self.parent_uuid) and self.changed <= self.made


def read(fd: int) -> Subvolume | None:
    """The subvolume that the directory ``fd`` is in; None if it is in none."""
    buffer = bytearray(_SIZE)
    try:
        fcntl.ioctl(fd, _GET_SUBVOL_INFO, buffer)
    except OSError:
        return None
    number, uuid, parent, changed, made, seconds, nanoseconds = _FORM.unpack_from(
        buffer
    )
    when = seconds + nanoseconds / 1e9
    return Subvolume(uuid, parent, changed, made, number, when)


def read_at(path: str | os.PathLike[str]) -> Subvolume | None:
    """As read, of a directory by its path; None also if there is none, or a link."""
    try:
        fd = os.open(path, _DIRECTORY)
    except OSError:
        return None
    try:
        return read(fd)
    finally:
        os.close(fd)


def is_read_only(fd: int) -> bool:
    """True if the subvolume whose top directory is ``fd`` is frozen. Raises OSError."""
    return bool(_read_flags(fd) & _READ_ONLY)


def freeze(fd: int) -> None:
    """Make the subvolume whose top directory is ``fd`` read-only.

    By its descriptor, so that root can do it in a directory of another user's, where a
    path may lead elsewhere a moment later. Raises OSError.
    """
    fcntl.ioctl(fd, _SET_FLAGS, _FLAGS.pack(_read_flags(fd) | _READ_ONLY))


def thaw(fd: int) -> None:
    """Make it writable again, for its owner or root. Raises OSError."""
    fcntl.ioctl(fd, _SET_FLAGS, _FLAGS.pack(_read_flags(fd) & ~_READ_ONLY))


def snapshot(source: int, directory: int, name: str) -> None:
    """Make a writable snapshot of ``source`` as ``name`` in ``directory``.

    By descriptors, as in freeze. What is at that name already stays. Raises OSError.
    """
    argument = _SNAPSHOT_FORM.pack(source, 0, 0, b"", name.encode())
    # In place, for the buffer is larger than what fcntl would copy.
    fcntl.ioctl(directory, _SNAPSHOT, bytearray(argument))


def _read_flags(fd: int) -> int:
    flags: int = _FLAGS.unpack(fcntl.ioctl(fd, _GET_FLAGS, bytes(_FLAGS.size)))[0]
    return flags
