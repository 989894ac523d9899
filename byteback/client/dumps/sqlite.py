"""Copies SQLite databases as they are between two transactions."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import sqlite3
import stat
import tempfile
import time
import urllib.parse
from pathlib import Path

from byteback.client.dumps import dump
from byteback.client.settings import DIRECTORY as CONFIGURATION
from byteback.client.settings import read_text
from byteback.errors import BytebackError, NotSetUpError, ToolError, quote
from byteback.system import files

DIRECTORY = dump.DIRECTORY / "sqlite"
LIST = CONFIGURATION / "sqlite"
WAIT_S = 300.0  # for a transaction of another program to end


def dump_all() -> None:
    """Copy each database that the list names, to its own path below ``DIRECTORY``.

    Raises NotSetUpError without a list, or if a line of it finds nothing, and
    ToolError with SQLite's own words.
    """
    # Owners of databases pass through on the way to their working directory.
    dump.make_directory(DIRECTORY, 0o711)
    kept = set()
    for database in find_databases():
        target = DIRECTORY / f"{dump.file_name(str(database))}.sqlite"
        _copy(database, target)
        kept.add(target.name)
    dump.forget_others(DIRECTORY, kept)


def find_databases() -> list[Path]:
    """The databases that the list names: absolute paths and patterns, one a line."""
    lines = [line.strip() for line in (read_text(LIST) or "").splitlines()]
    patterns = [line for line in lines if line and not line.startswith("#")]
    if not patterns:
        raise NotSetUpError(
            f"{quote(str(LIST))} names no database",
            hint="write absolute paths or patterns there, one a line",
        )
    found: set[Path] = set()
    for pattern in patterns:
        matches = glob.glob(pattern)  # noqa: PTH207 # an absolute pattern
        if not pattern.startswith("/") or not matches:
            raise NotSetUpError(
                f"{quote(str(LIST))} names {quote(pattern)}, which is nowhere",
                hint="correct or remove that line",
            )
        found |= {Path(match) for match in matches}
    return sorted(found)


def _copy(database: Path, target: Path) -> None:
    """As the database's owner: SQLite follows what stands beside it, links too.

    A journal that was planted there could otherwise have root delete any file.
    """
    database = database.resolve()
    owner = database.stat()
    if not stat.S_ISREG(owner.st_mode):
        raise ToolError(f"{quote(str(database))} is no file")
    if owner.st_uid == 0:
        owner = database.parent.stat()  # who can put a journal there
    with tempfile.TemporaryDirectory(prefix=".", dir=DIRECTORY) as directory:
        os.chown(directory, owner.st_uid, owner.st_gid)
        copy = Path(directory, "copy")
        _run_as(owner, database, copy)
        copy.rename(target.with_name(f".{target.name}.new"))
    _accept(target)


def _accept(target: Path) -> None:
    """Take what an owner has left over, if it is a plain file and nothing else."""
    unfinished = target.with_name(f".{target.name}.new")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(unfinished, flags)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                raise BytebackError(f"the copy {quote(target.name)} was tampered with")
            os.fchown(fd, 0, 0)
            os.fchmod(fd, 0o600)
            os.fsync(fd)
        finally:
            os.close(fd)
        unfinished.replace(target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    files.sync_directory(target.parent)


def _run_as(owner: os.stat_result, database: Path, copy: Path) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = b"the copying process failed"
        try:
            os.close(reading)
            _become(owner)
            copy_database(database, copy)
            said = b""
        except (sqlite3.Error, OSError, BytebackError) as error:
            said = str(error).encode()
        finally:
            os.write(writing, said[:1000])
            os._exit(1 if said else 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        stderr_tail = stream.read().decode("utf-8", "surrogateescape")
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise ToolError(
            f"cannot copy the database {quote(str(database))}", details=[stderr_tail]
        )


def _become(owner: os.stat_result) -> None:
    groups = [owner.st_gid]
    with contextlib.suppress(KeyError):
        user = pwd.getpwuid(owner.st_uid)
        groups = os.getgrouplist(user.pw_name, user.pw_gid)
    os.setgroups(groups)
    os.setgid(owner.st_gid)
    os.setuid(owner.st_uid)
    os.umask(0o077)


def copy_database(database: Path, copy: Path) -> None:
    """Copy in one step, so that it is a state which some transaction left.

    Python's backup waits for locks without end, hence the watch on it. Raises
    sqlite3.Error, and BytebackError for a copy that fails SQLite's own check.
    """
    deadline = time.monotonic() + WAIT_S

    def watch(status: int, _remaining: int, _total: int) -> None:
        if status not in (0, 101) and time.monotonic() > deadline:  # OK, DONE
            raise BytebackError(f"it was locked for {WAIT_S:g} seconds")

    uri = f"file:{urllib.parse.quote(os.fsencode(database))}?mode=rw"
    with (
        contextlib.closing(sqlite3.connect(uri, uri=True)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target, pages=-1, progress=watch)
        answer = target.execute("PRAGMA quick_check").fetchone()[0]
    if answer != "ok":
        raise BytebackError(f"its copy is damaged: {answer}")
