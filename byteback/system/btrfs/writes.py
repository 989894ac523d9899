"""Measures what was written to a subvolume after a transaction, by its tree of items.

btrfs numbers its transactions, and each leaf of a tree and each extent of a file has
the number of the one that wrote it. A search that asks for later ones skips all
branches that are older, so that it costs what was written and not what there is.
"""

from __future__ import annotations

import fcntl
import struct
import time
from typing import NamedTuple

# BTRFS_IOC_TREE_SEARCH_V2 of linux/btrfs.h (Linux 3.14): a key to search by, then the
# size of the buffer, then the buffer. The kernel serves only root.
_TREE_SEARCH = 0xC0709411
_KEY = struct.Struct("=QQQQQQQIIII32xQ")
_BUFFER = 1 << 16
_ITEM = struct.Struct("=QQQII")  # transaction, object, offset, type, length
_MAX = (1 << 64) - 1
# Of btrfs_tree.h: BTRFS_EXTENT_DATA_KEY, and struct btrfs_file_extent_item.
_EXTENT = struct.Struct("=QQBBHBQQQQ")
_EXTENT_TYPE = 108
_INLINE = 0
_ITEM_HEADER = 25  # struct btrfs_item in a leaf
# Leaves are split in halves when they are full: of each about a third is empty.
_LEAF_SHARE = 1.5


class Written(NamedTuple):
    """Bytes of the disc; copies count once."""

    data: int
    metadata: int
    is_all: bool  # else the time was up: there is more


def written_since(fd: int, transaction: int, timeout_s: float) -> Written:
    """Measure what was written to the subvolume of ``fd`` after that transaction.

    What was written over or deleted since then does not count. Raises OSError, with
    EPERM for all users but root.
    """
    deadline = time.monotonic() + timeout_s
    data = metadata = 0.0
    first = (0, 0, 0)
    buffer = bytearray(_KEY.size + _BUFFER)
    while time.monotonic() < deadline:
        count = _search(fd, buffer, first, transaction + 1)
        at = _KEY.size
        for _ in range(count):
            _, number, offset, kind, length = _ITEM.unpack_from(buffer, at)
            at += _ITEM.size
            metadata += length + _ITEM_HEADER
            if kind == _EXTENT_TYPE and length >= _EXTENT.size:
                data += _new_bytes(_EXTENT.unpack_from(buffer, at), transaction)
            at += length
        if not count:
            return Written(int(data), int(metadata * _LEAF_SHARE), is_all=True)
        following = _next_key(number, kind, offset)
        if following is None:
            return Written(int(data), int(metadata * _LEAF_SHARE), is_all=True)
        first = following
    return Written(int(data), int(metadata * _LEAF_SHARE), is_all=False)


def _search(
    fd: int, buffer: bytearray, first: tuple[int, int, int], transaction: int
) -> int:
    """Fill the buffer with items of leaves of that transaction or later; how many."""
    number, kind, offset = first
    # Tree 0 is that of the descriptor. Objects, offsets, transactions, types.
    _KEY.pack_into(
        *(buffer, 0, 0, number, _MAX, offset, _MAX, transaction, _MAX, kind, 255),
        *(0xFFFFFFFF, 0, _BUFFER),
    )
    fcntl.ioctl(fd, _TREE_SEARCH, buffer)
    count: int = _KEY.unpack_from(buffer)[9]
    return count


def _next_key(number: int, kind: int, offset: int) -> tuple[int, int, int] | None:
    if offset < _MAX:
        return number, kind, offset + 1
    if kind < 255:
        return number, kind + 1, 0
    return (number + 1, 0, 0) if number < _MAX else None


def _new_bytes(extent: tuple[int, ...], transaction: int) -> float:
    """The size of a file's piece, if it is younger: its share of an extent."""
    made, whole, *_, kind, start, size, _, length = extent
    if kind == _INLINE or start == 0 or made <= transaction or not whole:
        return 0.0  # in metadata, a hole, or from before
    return size * min(1.0, length / whole)
