"""The names that a first server sends in front of a snapshot, before rsync speaks.

Each is two bytes with its length, and as many bytes. Lengths that no path has stand for
something else. What follows the end is rsync's, so that no byte too many may be read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

LENGTH = struct.Struct("!H")
MAX_NAME = 4096  # bytes; Linux follows no longer path
MAX_NAMES = 1 << 20
STILL_HERE = LENGTH.pack(0)  # the comparison takes its time
EVERYTHING = LENGTH.pack(0xFFFE)  # nothing is known: all contents are to be compared
AGAIN = LENGTH.pack(0xFFFD)  # rsync has to bring the snapshot twice
END = LENGTH.pack(0xFFFF)


def format_name(name: bytes) -> bytes:
    """One name; read_names reads it back. Raises ValueError for one that is none."""
    if not 0 < len(name) <= MAX_NAME:
        raise ValueError("this is no path")
    return LENGTH.pack(len(name)) + name


class CompareAllError(Exception):
    """The first server does not know which files changed."""


def read_names(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """The names, from ``read``, which returns exactly so many bytes; b"" for AGAIN.

    Raises CompareAllError where the first server tells that, ValueError for what it
    never sends, and what ``read`` raises.
    """
    count = 0
    while (head := read(LENGTH.size)) != END:
        if head == EVERYTHING:
            raise CompareAllError
        if head == STILL_HERE:
            continue
        count += 1
        if head == AGAIN and count <= MAX_NAMES:
            yield b""
            continue
        (length,) = LENGTH.unpack(head)
        if length > MAX_NAME or count > MAX_NAMES:
            raise ValueError("these are no names of files that changed")
        yield read(length)
