"""What btrfs knows of a subvolume: whose snapshot it is, and of when."""

from __future__ import annotations

import fcntl
import struct
from dataclasses import dataclass

TOP_INODE = 256  # of the top directory of each subvolume

# BTRFS_IOC_GET_SUBVOL_INFO of linux/btrfs.h (Linux 4.18), which needs no privilege:
# treeid, name, parent_id, dirid, generation, flags, three uuids, four transaction
# numbers, four times.
_GET_SUBVOL_INFO = 0x81F8943C
_SIZE = 504
_FORM = struct.Struct("=8x256x8x8x8x8x16s16s16xQQ")


@dataclass(frozen=True)
class Subvolume:
    """A subvolume, in the terms of btrfs-subvolume(8)."""

    uuid: bytes
    parent_uuid: bytes  # of what it is a snapshot of; all zero for none
    changed: int  # number of the last transaction that changed it
    made: int  # number of the one that made it

    @property
    def is_untouched(self) -> bool:
        """Whether it is still what was snapshotted, writable or not."""
        return any(self.parent_uuid) and self.changed <= self.made


def read(fd: int) -> Subvolume | None:
    """The subvolume that the directory ``fd`` is in; None if it is in none."""
    buffer = bytearray(_SIZE)
    try:
        fcntl.ioctl(fd, _GET_SUBVOL_INFO, buffer)
    except OSError:
        return None
    uuid, parent, changed, made = _FORM.unpack_from(buffer)
    return Subvolume(uuid, parent, changed, made)
