"""Finds, on the first server, what rsync would not bring right by itself.

rsync takes a file of the same size and time for unchanged. Between two snapshots of one
client the first server can tell more: each change sets an inode's ctime, which no
program can set at will. Where inode number or ctime differ, the contents are compared.

And rsync loses ACLs, as in a client's backup (client/backup/lost_acls.py). Of a file
with new contents the second server can prevent it: where it has no ACL yet, rsync
writes the one that it was sent, and does so last. Else another transfer brings them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

from byteback.errors import RefusedError
from byteback.server import limits
from byteback.server.store import tree
from byteback.server.store.layout import Store
from byteback.server.store.settings import ServerSettings
from byteback.system.rsync import fake_super
from byteback.wire import changed_names

STILL_HERE_S = 20.0
CHUNK = 1 << 20
_STDOUT = 1
_ACLS = frozenset(fake_super.ACLS)
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def tell(
    store: Store, client: str, snapshot: str, base: str, settings: ServerSettings
) -> None:
    """Write the names to standard output, for a second server that has ``base``.

    By a process of its own, which can read this client's trees and nothing else.
    Raises RefusedError if that fails.
    """
    pid = os.fork()
    if pid == 0:
        _answer(store.host_directory(client), snapshot, base, settings)
    try:
        status = os.waitpid(pid, 0)[1]
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    if status != 0:
        raise RefusedError(
            "this server could not tell which files changed",
            hint="'byteback-replicate --checksum' on the other server compares all",
        )


def tell_everything() -> None:
    """Write that nothing is known, so that all contents are to be compared."""
    _write(changed_names.EVERYTHING)


def _answer(
    directory: Path, snapshot: str, base: str, settings: ServerSettings
) -> NoReturn:
    """In the child: write all names, and end without a word to any other process."""
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        limits.confine_search(directory, settings)
        _write_names(directory / snapshot, directory / base, settings.io_timeout_s)
        status = 0
    finally:
        os._exit(status)


def _write_names(newer: Path, older: Path, timeout_s: int) -> None:
    last = time.monotonic()

    def step() -> None:
        nonlocal last
        if time.monotonic() - last > STILL_HERE_S:
            last = time.monotonic()
            _write(changed_names.STILL_HERE, timeout_s)

    is_told = False
    try:
        for count, change in enumerate(unseen_changes(newer, older, step)):
            if count == changed_names.MAX_NAMES:
                raise OverflowError
            if not change.loses_acl:
                name = change.path.encode("utf-8", "surrogateescape")
                _write(changed_names.format_name(name), timeout_s)
            elif not is_told:
                is_told = True
                _write(changed_names.AGAIN, timeout_s)
    except OverflowError:
        _write(changed_names.EVERYTHING, timeout_s)
    else:
        _write(changed_names.END, timeout_s)


class Unseen(NamedTuple):
    """A file that rsync would not bring right by itself."""

    path: str
    loses_acl: bool = False  # so that only another transfer brings it


def unseen_changes(
    newer: Path, older: Path, step: Callable[[], None]
) -> Iterator[Unseen]:
    """Files with another content than in ``older``, of one size and time, or an ACL.

    ``step`` is called at least once for each file, and for each piece of a large one.
    Raises as tree.entries_below.
    """
    above: str | None = None
    before: int | None = None
    with contextlib.closing(tree.entries_below(newer)) as entries:
        try:
            for found in entries:
                step()
                parent = found.path.rpartition("/")[0]
                if parent != above:
                    if before is not None:
                        os.close(before)
                    above, before = parent, tree.open_beneath(older, parent)
                yield from _look_at(found, before, step)
        finally:
            if before is not None:
                os.close(before)


def _look_at(
    found: tree.Found, before: int | None, step: Callable[[], None]
) -> Iterator[Unseen]:
    name = found.entry.name
    now = tree.status(found.directory, name)
    then = tree.status(before, name) if before is not None else None
    if now is None or not (stat.S_ISREG(now.st_mode) or stat.S_ISDIR(now.st_mode)):
        return
    is_one_kind = then is not None and stat.S_IFMT(now.st_mode) == stat.S_IFMT(
        then.st_mode
    )
    if before is None or then is None or not is_one_kind:
        if _loses_new_acl(found.directory, name, now):
            yield Unseen(found.path, loses_acl=True)
        return
    if (now.st_ino, now.st_ctime_ns) == (then.st_ino, then.st_ctime_ns):
        return
    has_acl, others = _attributes(found.directory, name)
    is_lost = has_acl and others != _attributes(before, name)[1]
    if is_lost:
        yield Unseen(found.path, loses_acl=True)
    if not stat.S_ISREG(now.st_mode):
        return
    if (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns):
        if has_acl and not is_lost:
            yield Unseen(found.path)  # rsync sees the rest
        return
    if not _is_same_file(found.directory, before, name, now.st_size, step):
        yield Unseen(found.path)


def _loses_new_acl(directory: int, name: str, status: os.stat_result) -> bool:
    """True of a new directory or device with an ACL and other attributes besides."""
    has_acl, others = _attributes(directory, name)
    note = fake_super.parse_fake_stat(others.pop(fake_super.ATTRIBUTE, b""))
    mode = status.st_mode if note is None else note.mode
    return has_acl and bool(others) and not stat.S_ISREG(mode)


def _attributes(directory: int, name: str) -> tuple[bool, dict[str, bytes]]:
    """True if a file has an ACL, and its other attributes; none where it is closed."""
    try:
        fd = os.open(name, _FILE, dir_fd=directory)
    except OSError:
        return False, {}
    try:
        keys = os.listxattr(fd)
        others = [key for key in keys if key not in _ACLS]
        has_acl = len(keys) > len(others)
        return has_acl, {key: os.getxattr(fd, key) for key in others if has_acl}
    except OSError:
        return False, {}
    finally:
        os.close(fd)


def _is_same_file(
    newer: int, older: int, name: str, size: int, step: Callable[[], None]
) -> bool:
    with contextlib.ExitStack() as stack:
        fds = []
        for directory in (newer, older):
            try:
                fds.append(os.open(name, _FILE, dir_fd=directory))
            except OSError:
                return False  # closed to us: rsync is to say so
            stack.callback(os.close, fds[-1])
        try:
            return _is_same(fds[0], fds[1], size, step)
        except OSError:
            return False  # a bad disc: one file of it is to hold up no snapshot


def _is_same(one: int, other: int, size: int, step: Callable[[], None]) -> bool:
    at = 0
    while (at := min(_next_data(one, at, size), _next_data(other, at, size))) < size:
        step()
        if os.pread(one, CHUNK, at) != os.pread(other, CHUNK, at):
            return False
        at += CHUNK
    return True


def _next_data(fd: int, at: int, size: int) -> int:
    """Where a file goes on behind a hole: that may be larger than any disc."""
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return size  # there is nothing but a hole


def _write(data: bytes, timeout_s: int = 0) -> None:
    """Write, and be ended by the kernel if the other side does not read."""
    signal.alarm(timeout_s)
    while data:
        data = data[os.write(_STDOUT, data) :]
    signal.alarm(0)
