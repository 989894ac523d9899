"""Locks that die with their holder: flock(2) on a file in a private directory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from byteback.errors import SHORTAGES, BusyError, BytebackError, LockedError, quote

POLL_S = 0.1
_HINTS = {
    errno.EROFS: "its file system is mounted read-only",
    errno.ENOTDIR: "something else is at that path: move it away",
    errno.EEXIST: "something else is at that path: move it away",
    errno.ENOENT: "make that directory first",
}


class Lock(NamedTuple):
    """A lock that is held. A child that inherits ``fd`` holds it too."""

    path: Path
    fd: int


@contextlib.contextmanager
def hold(path: Path, *, wait_s: float = 0.0) -> Iterator[Lock]:
    """Hold the lock at ``path`` for the length of the block.

    The kernel drops it when the last process that inherited the descriptor ends, so
    that a crash never leaves it behind; the file itself stays and is never removed.
    Raises LockedError, naming the holder, if it is still taken after ``wait_s``.
    """
    make_private_directory(path.parent)
    with map_os_errors(path):
        # Read-only: a transfer's rsync inherits it, and is to fill no file with it.
        flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        # The store's user could have put a fifo there, on which root would wait.
        flags |= os.O_NONBLOCK
        fd = os.open(path, flags, mode=0o600)
    try:
        _acquire(fd, path, wait_s)
        _sign(path)
        yield Lock(path, fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def hold_directory(path: Path, *, wait_s: float = 0.0) -> Iterator[Lock]:
    """Hold a lock on the directory ``path`` itself for the length of the block.

    It needs no file, so that it works on a disc without a byte left, and for every
    user who may read the directory. Raises LockedError as hold does.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _acquire(fd, path, wait_s)
        yield Lock(path, fd)
    finally:
        os.close(fd)


def is_held(path: Path) -> bool:
    """A process holds the lock at ``path`` now. Nothing is made or changed."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def read_holder(path: Path) -> str:
    """The last holder's signature: ``pid N (program, since TIME)``, or ''."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_bytes()[:200].decode("utf-8").strip()
    return ""


def make_private_directory(path: Path) -> None:
    """Make ``path`` if it is missing, and make sure that no other user writes there.

    A lock or socket in a directory that others can write to could be put there by
    them beforehand, as a link to a file of ours.
    """
    with map_os_errors(path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022 or path.is_symlink():
        raise BytebackError(
            f"cannot use {quote(str(path))}: other users can write to it",
            hint="make it yours alone: "
            f"chown {os.geteuid()} {path} && chmod go-w {path}",
        )


@contextlib.contextmanager
def map_os_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into BusyError if it can pass, else into BytebackError."""
    try:
        yield
    except OSError as error:
        message = f"cannot use {quote(str(path))}: {error.strerror}"
        if error.errno in SHORTAGES:
            raise BusyError(message, "make room there, or try again later") from None
        raise BytebackError(message, _HINTS.get(error.errno or 0)) from None


def _acquire(fd: int, path: Path, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = read_holder(path) or "another process"
                raise LockedError(
                    f"cannot lock {quote(str(path))}: held by {holder}",
                    hint="wait for its end: no lock outlives its process",
                ) from None
            time.sleep(POLL_S)


def _sign(path: Path) -> None:
    program = Path(sys.argv[0]).name or "python3"
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    text = f"pid {os.getpid()} ({program}, since {since})\n".encode()
    # The signature only serves messages: a full disc must not stop the lock.
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.write(fd, text)
        finally:
            os.close(fd)
