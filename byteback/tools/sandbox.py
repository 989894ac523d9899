"""Confines a process to a few directories, by Linux's Landlock.

A confined process, and all that it starts, can open files only beneath what it was
given, run nothing but what it was given, and make no TCP connection. Landlock asks for
no privilege. It does not hide names, and does not stop chmod, utime or setxattr on a
path that the process can name (landlock(7)); see DESIGN.md, D6.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# The same numbers on every architecture (asm-generic).
_SYS_CREATE_RULESET = 444
_SYS_ADD_RULE = 445
_SYS_RESTRICT_SELF = 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

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
# in attributes: nobody may make links, fifos, sockets or devices in it.
READ = READ_FILE | READ_DIR
WRITE = (
    READ | WRITE_FILE | TRUNCATE | MAKE_REG | MAKE_DIR | REMOVE_FILE | REMOVE_DIR
) | REFER

# Without REFER (ABI 2, Linux 5.19) no hard link between two directories can be made.
MIN_ABI = 2


@dataclass(frozen=True)
class Grant:
    """``rights`` on a file, or on a directory and all that is beneath it."""

    path: Path
    rights: int


def landlock_abi() -> int:
    """The kernel's Landlock version; 0 where it has none or it is switched off."""
    found = _libc().syscall(_SYS_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    return max(0, int(found))


def is_available() -> bool:
    """Whether this kernel can confine a transfer."""
    return landlock_abi() >= MIN_ABI


def describe() -> str:
    """One sentence about the confinement that this machine offers."""
    abi = landlock_abi()
    if abi >= MIN_ABI:
        return f"transfers are confined to their client's tree by Landlock (ABI {abi})"
    return (
        "this kernel cannot confine transfers: it has no Landlock "
        f"of version {MIN_ABI} or later"
    )


def program_grants(program: Path) -> list[Grant]:
    """What a dynamically linked program needs to run: itself, its libraries, no more.

    The loader must be executable as well; other programs are not, so that even a
    program that was taken over cannot start a shell.
    """
    libraries = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64")
    files = (
        "/etc/ld.so.cache",
        "/etc/nsswitch.conf",
        "/etc/passwd",
        "/etc/group",
        "/etc/localtime",
        "/usr/share/zoneinfo",
        "/dev/urandom",
    )
    loaders = [
        path
        for directory in ("/lib", "/lib64")
        for pattern in ("ld-*.so*", "*/ld-*.so*")
        for path in Path(directory).glob(pattern)
    ]
    return [
        Grant(program, EXECUTE | READ_FILE),
        *(Grant(path, EXECUTE | READ_FILE) for path in loaders),
        *(Grant(Path(path), READ) for path in (*libraries, *files)),
        Grant(Path("/dev/null"), READ_FILE | WRITE_FILE),
    ]


@contextlib.contextmanager
def confined_to(grants: Iterable[Grant]) -> Iterator[Callable[[], None]]:
    """A function that confines the process that calls it to ``grants``, for good.

    It is for the child between fork and exec, where little may be done: all opening
    and checking happens here, before the fork. Grants of missing files are skipped.
    Raises OSError where Landlock is missing.
    """
    abi = landlock_abi()
    ruleset = _create_ruleset(abi)
    try:
        for grant in grants:
            _add_rule(ruleset, grant, _handled_rights(abi))
        libc = _libc()

        def enter() -> None:
            if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(
                _SYS_RESTRICT_SELF, ruleset, 0
            ):
                os._exit(126)  # never go on unconfined

        yield enter
    finally:
        os.close(ruleset)


def _handled_rights(abi: int) -> int:
    rights = _RIGHTS_OF_ABI_1
    for since, right in ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)):
        if abi >= since:
            rights |= right
    return rights


def _create_ruleset(abi: int) -> int:
    network = (_TCP_BIND | _TCP_CONNECT) if abi >= 4 else 0
    scoped = (_SCOPE_ABSTRACT_SOCKET | _SCOPE_SIGNAL) if abi >= 6 else 0
    fields = [_handled_rights(abi)]
    if abi >= 4:
        fields.append(network)
    if abi >= 6:
        fields.append(scoped)
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    fd = int(_libc().syscall(_SYS_CREATE_RULESET, attributes, len(attributes), 0))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "cannot make a Landlock ruleset")
    return fd


def _add_rule(ruleset: int, grant: Grant, handled: int) -> None:
    try:
        fd = os.open(grant.path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rights = grant.rights & handled
        if not grant.path.is_dir():
            rights &= _FILE_RIGHTS
        rule = struct.pack("=Qi", rights, fd)
        if _libc().syscall(_SYS_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0):
            raise OSError(ctypes.get_errno(), f"cannot confine to {grant.path}")
    finally:
        os.close(fd)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
