"""Tells a btrfs file system, and a subvolume of it, from all others."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import NamedTuple

from byteback.system.btrfs import subvolume

# BTRFS_IOC_FS_INFO of linux/btrfs.h, which needs no privilege: highest device number,
# number of devices, uuid, and what is of no interest here.
_FS_INFO = 0x8400941F
_SIZE = 1024
_FORM = struct.Struct("=8x8x16s")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Identity(NamedTuple):
    """A subvolume, by the uuid of its file system and its number in there."""

    filesystem: str  # as blkid(8) shows it
    subvolume: int


def identify(directory: Path) -> Identity | None:
    """The subvolume that ``directory`` is in; None if it is missing or on no btrfs."""
    try:
        fd = os.open(directory, _DIRECTORY)
    except OSError:
        return None
    try:
        buffer = bytearray(_SIZE)
        fcntl.ioctl(fd, _FS_INFO, buffer)
    except OSError:
        return None
    else:
        (number,) = _FORM.unpack_from(buffer)
        found = subvolume.read(fd)
        return Identity(_format_uuid(number), found.number if found else 0)
    finally:
        os.close(fd)


def _format_uuid(number: bytes) -> str:
    """As the module uuid does, which takes as long to import as all else together."""
    digits = number.hex()
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return "-".join(parts)
