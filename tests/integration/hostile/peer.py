"""A sender that speaks rsync's protocol 29 and lies: names, links, rules, lengths.

No rsync sends this. Protocol 29 is the last one that is plain enough to be written down
in a page; every rsync since 2.6.4 serves it.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass

VERSION = 29
_LONG_NAME = 1 << 6
_EXTENDED = 1 << 2
_TRANSFER = 1 << 15
_DONE = -1


@dataclass(frozen=True)
class Entry:
    """One entry of a file list; ``name`` goes over the line as it is."""

    name: bytes
    content: bytes = b""
    mode: int = stat.S_IFREG | 0o644
    target: bytes = b""


def directory(name: bytes) -> Entry:
    """A directory."""
    return Entry(name, mode=stat.S_IFDIR | 0o755)


def link(name: bytes, target: str) -> Entry:
    """A symbolic link."""
    return Entry(name, mode=stat.S_IFLNK | 0o777, target=target.encode())


def speak(
    entries: Sequence[Entry], rules: Sequence[bytes] | None = None
) -> tuple[bytes, bytes]:
    """The sender's words before and after the receiver has made directories.

    It waits for no answer, yet a moment should pass between the two.

    ``rules`` are sent as filter rules, which a receiver takes when it is to delete.
    The receiver counts in a sorted list, so that the entries are sorted as it does.
    """
    said = [_int(VERSION)]
    if rules is not None:
        said += [_int(len(rule)) + rule for rule in rules]
        said.append(_int(0))
    entries = sorted(entries, key=_place)
    said += [_entry(entry) for entry in entries]
    said += [b"\0", _int(0)]  # the end of the list, and no input errors
    contents = [
        _content(index, entry.content)
        for index, entry in enumerate(entries)
        if stat.S_ISREG(entry.mode)
    ]
    return b"".join(said), b"".join(contents) + _int(_DONE) * 4


def _place(entry: Entry) -> list[tuple[int, bytes]]:
    """rsync's f_name_cmp: in each directory first "." and files, then directories."""
    if entry.name == b".":
        return []
    *above, last = entry.name.split(b"/")
    is_directory = stat.S_ISDIR(entry.mode)
    return [*((1, name) for name in above), (int(is_directory), last)]


def _entry(entry: Entry) -> bytes:
    said = bytes([_LONG_NAME | _EXTENDED, 0]) + _int(len(entry.name)) + entry.name
    said += _int(len(entry.content)) + _int(1_000_000_000) + _int(entry.mode)
    if stat.S_ISCHR(entry.mode) or stat.S_ISBLK(entry.mode):
        said += _int(1) + _int(3)
    if stat.S_ISLNK(entry.mode):
        said += _int(len(entry.target)) + entry.target
    return said


def _content(index: int, content: bytes) -> bytes:
    head = _int(0) * 4  # no block of an old copy is used
    said = _int(index) + struct.pack("<H", _TRANSFER) + head
    if content:
        said += _int(len(content)) + content
    return said + _int(0) + bytes(16)  # a wrong checksum: --inplace has written by now


def _int(value: int) -> bytes:
    return struct.pack("<i", value)
