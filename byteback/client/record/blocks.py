"""The record's file: for each directory its names, their inode numbers and ctimes.

A directory is one block, and the blocks come in the order of a walk that takes names
sorted, so that a new walk and an old record can be compared as both go by: neither is
ever in memory as a whole. After the blocks comes JSON that says what the record is of,
with a digest of all blocks. Whatever does not fit raises DamagedError.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from array import array
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

MAGIC = b"byteback record 1\n"
PLAIN, DIRECTORY, LINKED = 0, 1, 2  # LINKED: no directory, and with several names
UNKNOWN = -1  # instead of a ctime: what the server has of it is not known
MAX_NAMES = 500_000  # in one directory, which is in memory as a whole
MAX_ABOUT = 1 << 26  # bytes
_MAX_BYTES = 1 << 28  # of the names of one directory
_HEAD = struct.Struct("=IIIQQ")  # lengths of path and names, count, device, inode
_END = 0xFFFFFFFF  # in place of a path's length: JSON follows
_TAIL = struct.Struct("=II")
_LENGTH = struct.Struct("=I")
DIGEST = 16  # bytes


class DamagedError(Exception):
    """The file is no record, or no whole one."""


class Block(NamedTuple):
    """One directory. Lists are kept as the bytes that they are on disc."""

    path: str  # below the top, without a slash at either end; "" is the top
    device: int
    inode: int  # the directory's own
    names: bytes  # joined by NUL
    inodes: bytes  # eight bytes each
    ctimes: bytes  # nanoseconds, eight bytes each
    kinds: bytes

    def entries(self) -> Iterator[tuple[str, int, int, int]]:
        """Name, inode number, ctime and kind of each."""
        return zip(
            split_names(self.names),
            array("Q", self.inodes),
            array("q", self.ctimes),
            self.kinds,
            strict=True,
        )


def join_names(names: list[str]) -> bytes:
    """Names as a block holds them."""
    return os.fsencode("\0".join(names))


def split_names(joined: bytes) -> list[str]:
    """The names of a block."""
    return os.fsdecode(joined).split("\0") if joined else []


def order(path: str) -> str:
    """The key by which blocks are sorted: a directory, then all that is below it."""
    return path.replace("/", "\0")


class Writer:
    """Writes blocks, and at the end what they are."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.blake2b(digest_size=DIGEST)
        self.names = 0
        file.write(MAGIC)

    def add(self, block: Block) -> None:
        """Write one block; the caller keeps their order."""
        path = os.fsencode(block.path)
        count = len(block.kinds)
        numbers = len(path), len(block.names), count, block.device, block.inode
        head = _HEAD.pack(*numbers)
        data = b"".join(
            [head, path, block.names, block.inodes, block.ctimes, block.kinds]
        )
        self._digest.update(data)
        self._file.write(data)
        self.names += count

    def finish(self, about: dict[str, Any]) -> None:
        """Write the end; nothing comes behind it."""
        digest = self._digest.hexdigest()
        text = json.dumps(about | {"digest": digest}).encode("ascii")
        own = hashlib.blake2b(text, digest_size=DIGEST).digest()
        self._file.write(_TAIL.pack(_END, 0) + text + own + _LENGTH.pack(len(text)))


class Reader:
    """Reads a record: what it is of at once, its blocks one after the other."""

    def __init__(self, file: IO[bytes]) -> None:
        """Raises DamagedError, OSError."""
        self._file = file
        self.about = _read_about(file)

    def __iter__(self) -> Iterator[Block]:
        """All blocks. Raises DamagedError, at the end as well if any byte is wrong."""
        digest = hashlib.blake2b(digest_size=DIGEST)
        yield from _read_blocks(self._file, digest)
        if self.about.get("digest") != digest.hexdigest():
            raise DamagedError("its digest is another one")


def read_unfinished(file: IO[bytes]) -> Iterator[Block]:
    """The blocks of a record that is being written, from its start."""
    return _read_blocks(file, None)


def _read_blocks(file: IO[bytes], digest: hashlib.blake2b | None) -> Iterator[Block]:
    if file.read(len(MAGIC)) != MAGIC:
        raise DamagedError("it is no record")
    while head := file.read(_TAIL.size):
        length, names = _TAIL.unpack(_whole(head, _TAIL.size))
        if length == _END:
            return
        head += _whole(file.read(_HEAD.size - _TAIL.size), _HEAD.size - _TAIL.size)
        _, _, count, device, inode = _HEAD.unpack(head)
        if count > MAX_NAMES or max(names, length) > _MAX_BYTES:
            raise DamagedError("a length in it is impossible")
        size = length + names + count * 17
        data = _whole(file.read(size), size)
        if digest is not None:
            digest.update(head)
            digest.update(data)
        yield _cut(data, length, names, count, (device, inode))
    if digest is not None:
        raise DamagedError("it ends too soon")


def _whole(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise DamagedError("it ends too soon")
    return data


def _read_about(file: IO[bytes]) -> dict[str, Any]:
    """Read the end of a record; ``file`` is at its start again afterwards."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _LENGTH.size))
    try:
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        if length > MAX_ABOUT:
            raise DamagedError("its end is too long")
        file.seek(max(0, size - _LENGTH.size - DIGEST - length))
        text, own = file.read(length), file.read(DIGEST)
        if hashlib.blake2b(text, digest_size=DIGEST).digest() != own:
            raise DamagedError("its end is another one")
        about = json.loads(text)
    except (ValueError, RecursionError, struct.error):
        raise DamagedError("its end cannot be read") from None
    file.seek(0)
    if not isinstance(about, dict):
        raise DamagedError("its end is something else")
    return about


def _cut(data: bytes, path: int, names: int, count: int, own: tuple[int, int]) -> Block:
    inodes = path + names
    ctimes = inodes + 8 * count
    kinds = ctimes + 8 * count
    return Block(
        os.fsdecode(data[:path]),
        *own,
        data[path:inodes],
        data[inodes:ctimes],
        data[ctimes:kinds],
        data[kinds:],
    )
