"""The space of a btrfs for data and metadata, by ioctls open to any user.

``btrfs filesystem usage`` shows the same, warns any user but root each time that it
would tell root more, and takes longer than all else that a run without work does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from pathlib import Path

from byteback.model.free_space import MetadataRoom, Space, metadata_room

# BTRFS_IOC_SPACE_INFO, _FS_INFO and _DEV_INFO of linux/btrfs.h (Linux 3.0 at least).
_SPACE_INFO = 0xC0109414
_FS_INFO = 0x8400941F
_DEV_INFO = 0xD000941E
_COUNTS = struct.Struct("=QQ")  # places for answers, and how many there are
_SPACE = struct.Struct("=QQQ")  # flags, bytes handed out, bytes used
_DEVICES = struct.Struct("=QQ")  # the largest number of a device, how many there are
_DEVICE = struct.Struct("=Q16xQQ")  # number, bytes handed out, bytes in all
_NODE_SIZE = struct.Struct("=32xI")
_FS_INFO_SIZE, _DEV_INFO_SIZE = 1024, 4096
_MAX_SPACES = 64  # kinds of use, with every profile that a conversion may have left


def read_metadata_room(path: Path) -> MetadataRoom | None:
    """The room for metadata in the file system that holds ``path``.

    None for one that is no btrfs, or keeps data and metadata together.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        unallocated, devices = _read_devices(fd)
        return metadata_room(_read_spaces(fd), unallocated, devices)
    except OSError:
        return None
    finally:
        os.close(fd)


def read_spaces(path: Path) -> list[Space]:
    """All room that is handed out, by kind and profile. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _read_spaces(fd)
    finally:
        os.close(fd)


def read_node_size(path: Path) -> int:
    """Bytes in a leaf of metadata: 16 KiB, or 4 on a small volume. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        buffer = bytearray(_FS_INFO_SIZE)
        fcntl.ioctl(fd, _FS_INFO, buffer)
        size: int = _NODE_SIZE.unpack_from(buffer)[0]
        return size
    finally:
        os.close(fd)


def _read_spaces(fd: int) -> list[Space]:
    buffer = bytearray(_COUNTS.size + _MAX_SPACES * _SPACE.size)
    _COUNTS.pack_into(buffer, 0, _MAX_SPACES, 0)
    fcntl.ioctl(fd, _SPACE_INFO, buffer)
    _, count = _COUNTS.unpack_from(buffer)
    places = range(_COUNTS.size, len(buffer), _SPACE.size)
    return [Space(*_SPACE.unpack_from(buffer, at)) for at in places[:count]]


def _read_devices(fd: int) -> tuple[int, int]:
    """Bytes of all devices that nothing was handed out of, and how many they are."""
    buffer = bytearray(_FS_INFO_SIZE)
    fcntl.ioctl(fd, _FS_INFO, buffer)
    last, count = _DEVICES.unpack_from(buffer)
    unallocated = 0
    for number in range(1, last + 1):
        device = bytearray(_DEV_INFO_SIZE)
        _DEVICE.pack_into(device, 0, number, 0, 0)
        with contextlib.suppress(OSError):  # a number that was given up again
            fcntl.ioctl(fd, _DEV_INFO, device)
            _, used, size = _DEVICE.unpack_from(device)
            unallocated += max(0, size - used)
    return unallocated, count
