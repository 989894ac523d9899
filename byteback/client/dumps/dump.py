"""Dumps of databases that a backup takes along: whole, or not at all.

They are not compressed (D24): rsync then sends only what has changed in them, snapshots
share the rest, and the store compresses by itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import urllib.parse
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from byteback.errors import BytebackError, ToolError, quote
from byteback.system import files, process

DIRECTORY = Path("/var/backups/byteback")
SUFFIXES = {".dump", ".sql", ".sqlite", ".new"}


def file_name(database: str) -> str:
    """A file's name for a database, which users may have called ``../../etc/x``.

    Two names never become one, and none is hidden.
    """
    encoded = urllib.parse.quote(database, safe=" ,=@", errors="surrogateescape")
    return f"%2E{encoded[1:]}" if encoded.startswith(".") else encoded


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Make ``path`` and what is above it, root's own.

    Raises BytebackError for a link or another user's directory: what is written
    there holds all databases.
    """
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    for place in (DIRECTORY, path):
        if place not in (path, *path.parents):
            continue
        status = place.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise BytebackError(
                f"{quote(str(place))} is no directory of root's own",
                hint="look at what it is, and move it away",
            )
    path.chmod(mode)


@contextlib.contextmanager
def new_dump(path: Path) -> Iterator[int]:
    """A descriptor to write a dump to, which takes its name when the block ends well.

    Until then, and for ever if it does not end well, the dump before it stays.
    """
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.unlink(missing_ok=True)  # of a run that was killed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(unfinished, flags, 0o600)
    try:
        yield fd
        os.fsync(fd)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    files.sync_directory(path.parent)


def write_output(
    argv: Sequence[str | Path],
    path: Path,
    extra_env: Mapping[str, str] | None = None,
) -> None:
    """Put what a program prints at ``path``. Raises ToolError if it fails."""
    with new_dump(path) as fd:
        running = process.start(argv, stdout=fd, extra_env=extra_env, cwd=Path("/"))
        try:
            _, stderr = running.communicate()
        finally:
            process.stop(running)
        if running.returncode != 0:
            how = process.describe_status(running.returncode)
            raise ToolError(
                f"the dump {quote(path.name)} was not made: {Path(argv[0]).name} {how}",
                details=process.last_lines(stderr),
                status=running.returncode,
            )


def forget_others(directory: Path, kept: Collection[str]) -> None:
    """Remove the dumps of databases that are gone; old snapshots still have them.

    What killed runs left goes, too, and nothing else.
    """
    for entry in directory.iterdir():
        if entry.name in kept:
            continue
        if entry.is_dir() and entry.name.startswith("."):
            shutil.rmtree(entry)
        elif entry.suffix in SUFFIXES:
            entry.unlink()
