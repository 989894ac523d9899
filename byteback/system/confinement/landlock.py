"""Linux's Landlock: what a process may open, by directory (landlock(7)).

It asks for no privilege. It does not hide names, and does not stop chmod, utime or
setxattr on a path that the process can name; see DESIGN.md, D6.
"""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path
from typing import NamedTuple

_SYS_CREATE_RULESET = 444
_CREATE_RULESET_VERSION = 1

# linux/landlock.h
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE = 1 << 4, 1 << 5
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK = 1 << 6, 1 << 7, 1 << 8, 1 << 9
MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = 1 << 10, 1 << 11, 1 << 12
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_RIGHTS_OF_ABI_1 = (1 << 13) - 1
_FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
_TCP_BIND, _TCP_CONNECT = 1, 2
_SCOPE_ABSTRACT_SOCKET, _SCOPE_SIGNAL = 1, 2

# A store holds plain files and directories alone, because --fake-super keeps all else
# in attributes: no program may make links, fifos, sockets or devices in it.
READ = READ_FILE | READ_DIR
WRITE = (
    READ | WRITE_FILE | TRUNCATE | MAKE_REG | MAKE_DIR | REMOVE_FILE | REMOVE_DIR
) | REFER

# All that changes a file or a directory, and all that makes or removes one.
WRITES = WRITE_FILE | TRUNCATE
MAKES = (
    REMOVE_DIR | REMOVE_FILE | REFER | MAKE_CHAR | MAKE_DIR | MAKE_REG | MAKE_SOCK
) | (MAKE_FIFO | MAKE_BLOCK | MAKE_SYM)

# Without REFER (ABI 2, Linux 5.19) no hard link between two directories can be made.
MIN_ABI = 2


class Grant(NamedTuple):
    """``rights`` on a file, or on a directory and all that is beneath it."""

    path: Path
    rights: int


def abi() -> int:
    """The kernel's Landlock version; 0 where it has none or it is switched off."""
    libc = ctypes.CDLL(None, use_errno=True)
    found = libc.syscall(_SYS_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    return max(0, int(found))


def is_available() -> bool:
    """True if this kernel's Landlock is good enough for a transfer."""
    return abi() >= MIN_ABI


def ruleset(version: int) -> bytes:
    """A struct landlock_ruleset_attr that denies all that this version can deny."""
    fields = [_handled_rights(version)]
    if version >= 4:
        fields.append(_TCP_BIND | _TCP_CONNECT)
    if version >= 6:
        fields.append(_SCOPE_ABSTRACT_SOCKET | _SCOPE_SIGNAL)
    return struct.pack(f"={len(fields)}Q", *fields)


def writing_ruleset(version: int) -> bytes:
    """The same that denies writing alone, and signals to others."""
    fields = [_handled_rights(version) & (WRITES | MAKES)]
    if version >= 6:
        fields += [0, _SCOPE_SIGNAL]
    return struct.pack(f"={len(fields)}Q", *fields)


def encode(grant: Grant, version: int) -> tuple[int, str]:
    """(rights, path) in the kernel's terms: a file takes fewer rights."""
    rights = grant.rights & _handled_rights(version)
    if not grant.path.is_dir():
        rights &= _FILE_RIGHTS
    return rights, str(grant.path)


def _handled_rights(version: int) -> int:
    rights = _RIGHTS_OF_ABI_1
    for since, right in ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)):
        if version >= since:
            rights |= right
    return rights
