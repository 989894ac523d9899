"""All subvolumes of a btrfs, and where in it they are. Only root may ask."""

from __future__ import annotations

import errno
import fcntl
import struct
from collections.abc import Iterator
from typing import NamedTuple

# BTRFS_IOC_TREE_SEARCH and BTRFS_IOC_INO_LOOKUP of linux/btrfs.h: both have an argument
# of 4096 bytes, which is the answer as well.
_TREE_SEARCH = 0xD0009411
_INO_LOOKUP = 0xD0009412
_SIZE = 4096
# struct btrfs_ioctl_search_key: tree, first and last object, offset and transaction,
# first and last type, number of items.
_KEY = struct.Struct("=QQQQQQQIII4x32x")
_ITEM = struct.Struct("=QQQII")  # transaction, object, offset, type, length
_LOOKUP = struct.Struct("=QQ")  # tree, inode; the path follows
# linux/btrfs_tree.h: the tree of trees, the tree of the top, the types of its items.
_ROOT_TREE, _TOP = 1, 5
_ROOT_ITEM, _ROOT_BACKREF = 132, 144
_MAX = 2**64 - 1
# struct btrfs_root_item: flags, references, three uuids; its oldest form has no uuids.
_ROOT = struct.Struct("<208xQI27x16s16s16s")
_READ_ONLY = 1
_BACKREF = struct.Struct("<QQH")  # the directory's inode, a number, the name's length


class Nested(NamedTuple):
    """A subvolume of a file system."""

    path: str  # from the top of the file system, whatever is mounted where
    uuid: bytes
    parent_uuid: bytes  # of what it is a snapshot of; all zero for none
    received_uuid: bytes  # of what btrfs-receive(8) made it from; all zero for none
    is_read_only: bool


class _Place(NamedTuple):
    parent: int  # the number of the subvolume that it is in
    directory: int  # an inode there
    name: bytes


def read(fd: int) -> list[Nested]:
    """The subvolumes of the file system of ``fd``, the top itself among them.

    One that is deleted meanwhile is missing. Raises OSError, of EPERM for any other
    user than root, and of ENOTTY where this is no btrfs.
    """
    roots: dict[int, tuple[int, bytes, bytes, bytes]] = {}
    places: dict[int, _Place] = {}
    for number, offset, kind, data in _search(fd):
        if kind == _ROOT_ITEM and len(data) >= _ROOT.size:
            flags, references, *uuids = _ROOT.unpack_from(data)
            if references:
                roots[number] = (flags, *uuids)
        elif kind == _ROOT_BACKREF:
            places[number] = _parse_place(offset, data)
    paths = {_TOP: b"/"}
    found = []
    for number, (flags, uuid, parent, received) in roots.items():
        path = _path(fd, number, places, paths)
        if path is not None:
            text = path.decode("utf-8", "surrogateescape")
            found.append(Nested(text, uuid, parent, received, bool(flags & _READ_ONLY)))
    return found


def inside(fd: int, number: int) -> list[tuple[int, str]]:
    """The subvolumes inside another one, by their numbers and their paths from there.

    The innermost come first. Raises OSError as read does.
    """
    places = {
        inner: _parse_place(offset, data)
        for inner, offset, kind, data in _search(fd)
        if kind == _ROOT_BACKREF
    }
    paths = {number: b""}
    found = []
    for inner in places:
        path = _path(fd, inner, places, paths)
        if path is not None and inner != number:
            text = path.decode("utf-8", "surrogateescape").lstrip("/")
            found.append((inner, text))
    return sorted(found, key=lambda one: -one[1].count("/"))


def _parse_place(parent: int, data: bytes) -> _Place:
    directory, _, length = _BACKREF.unpack_from(data)
    return _Place(parent, directory, data[_BACKREF.size : _BACKREF.size + length])


def _path(
    fd: int, number: int, places: dict[int, _Place], paths: dict[int, bytes]
) -> bytes | None:
    """The path of a subvolume, by way of those that it is in; ``paths`` are known."""
    chain = []
    while number not in paths:
        if number not in places or number in chain:
            return None
        chain.append(number)
        number = places[number].parent
    path = paths[number]
    for inner in reversed(chain):
        place = places[inner]
        above = _look_up(fd, place.parent, place.directory)
        if above is None:
            return None
        path = b"/".join([path.rstrip(b"/"), above + place.name])
        paths[inner] = path
    return path


def _look_up(fd: int, tree: int, inode: int) -> bytes | None:
    """A directory's path in its subvolume, ending in a slash; empty for the top."""
    buffer = bytearray(_LOOKUP.pack(tree, inode).ljust(_SIZE, b"\0"))
    try:
        fcntl.ioctl(fd, _INO_LOOKUP, buffer)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return bytes(buffer[_LOOKUP.size :]).split(b"\0")[0]


def _search(fd: int) -> Iterator[tuple[int, int, int, bytes]]:
    """Items of the tree of trees: object, offset, type and data."""
    key = (_TOP, 0, 0)  # object, type, offset: the order of items
    while True:
        buffer = bytearray(_SIZE)
        first, kind, offset = key
        # The first key counts as a whole: object, type and offset.
        _KEY.pack_into(
            buffer,
            0,
            *(_ROOT_TREE, first, _MAX, offset, _MAX, 0, _MAX),
            *(kind, 2**32 - 1, 4096),
        )
        fcntl.ioctl(fd, _TREE_SEARCH, buffer)
        count = _KEY.unpack_from(buffer)[-1]
        if not count:
            return
        position = _KEY.size
        for _ in range(count):
            _, number, item_offset, item_kind, length = _ITEM.unpack_from(
                buffer, position
            )
            position += _ITEM.size
            yield number, item_offset, item_kind, bytes(buffer[position:][:length])
            position += length
            key = (number, item_kind, item_offset + 1)
        if key[2] > _MAX:
            key = (key[0], key[1] + 1, 0)
