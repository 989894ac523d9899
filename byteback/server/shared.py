"""Keeps what is one file in ``current`` from standing for several of the client (D34).

rsync --inplace writes into whatever a name leads to. Where two names were one file at
the client and are two now, what it writes to one of them is in the other as well, and
nobody is told. So its own log of what it changes is read while it runs.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Collection, Generator, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from byteback import log
from byteback.errors import BusyError
from byteback.model.rsync_names import plain_name
from byteback.server import tree
from byteback.server.doubt import DOUBTED_NS
from byteback.server.store import Store
from byteback.tools import fifo, files

MAX_SHARED = 1 << 20  # files with several names that one transfer changes
MAX_NAMES = 100_000  # of all such files, which are few enough to be linked anew
MAX_WAITING = 1 << 24  # characters: paths of directories still to be looked into
# With hard links and files that change under other names rsync 3.5 comes to a
# standstill that no time-out ends, unless it knows all names from the start.
CAREFUL = ("--no-inc-recursive",)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOGGED = re.compile(rb"[0-9/]{10} [0-9:]{8} \[[0-9]+\] ")
# rsync(1), --itemize-changes: all but directories, and but what is new ("+").
_CHANGED = re.compile(rb"[<>.c][^d][^+ ]\S{8} (.+)", re.DOTALL)


class _FoundError(Exception):
    """There is one, and what the transfer goes on to do would have to be undone."""


class Changes:
    """The files of several names that a transfer changes, by their inode numbers."""

    def __init__(self, top: Path, separated: Collection[int] | None) -> None:
        self.numbers: set[int] = set()
        self.fifo: Path | None = None  # for rsync's log
        self.is_heard = False
        # They had one name when the transfer began; None: it is no second one.
        self._separated = separated
        self._top = top
        self._parent: str | None = None
        self._directory: int | None = None

    @property
    def options(self) -> Sequence[str]:
        """What rsync is to be told besides."""
        return () if self._separated is None else CAREFUL

    def look(self) -> None:
        """To be called now and then; ends the block in which the transfer is heard.

        A second transfer goes on to its end: else there might be no end to them.
        """
        if self.numbers and self._separated is None:
            raise _FoundError

    def take(self, line: bytes) -> None:
        """A line of rsync's log. What it names is looked at, beneath the top only."""
        prefix = _LOGGED.match(line)
        if prefix is None:
            return
        self.is_heard = True
        changed = _CHANGED.fullmatch(line[prefix.end() :].rstrip(b"\n"))
        if changed is None or len(self.numbers) > MAX_SHARED:
            return
        path = plain_name(os.fsdecode(changed[1]))
        parent, _, name = path.rpartition("/")
        if parent != self._parent:
            self.close()
            self._parent, self._directory = parent, self._open(parent)
        if self._directory is not None and name not in ("", ".", ".."):
            status = tree.status(self._directory, name)
            spared = self._separated or ()
            if status and status.st_nlink > 1 and status.st_ino not in spared:
                self.numbers.add(status.st_ino)

    def close(self) -> None:
        """Close what is open of the tree."""
        if self._directory is not None:
            os.close(self._directory)
        self._parent = self._directory = None

    def _open(self, parent: str) -> int | None:
        directory = tree.open_root(self._top)
        for name in parent.split("/"):
            if directory is None or name == "..":
                break
            if name not in ("", "."):
                above = directory
                directory = tree.open_directory(above, name)
                os.close(above)
        else:
            return directory
        if directory is not None:
            os.close(directory)
        return None


@contextlib.contextmanager
def heard(store: Store, host: str) -> Iterator[Changes]:
    """What a transfer changes, as far as its rsync logs that to ``fifo``.

    None where ``current`` is empty: a first backup changes nothing. Raises BusyError.
    """
    current, note = store.current(host), _note(store, host)
    separated: frozenset[int] | None = None
    with contextlib.suppress(FileNotFoundError, ValueError):
        separated = frozenset(map(int, note.read_text(encoding="ascii").split()))
    # Right for the very next transfer alone, whatever becomes of it.
    note.unlink(missing_ok=True)
    changes = Changes(current, separated)
    with os.scandir(current) as entries:
        is_empty = next(entries, None) is None
    if is_empty:
        yield changes
        return
    with contextlib.ExitStack() as stack:
        stack.callback(changes.close)
        try:
            path = note.with_suffix(".log")
            stack.enter_context(fifo.listening(path, changes.take))
        except OSError as error:
            raise BusyError(
                f"the server cannot follow this transfer: {error.strerror}",
                hint="its disc may be full; it makes room by itself, try again later",
            ) from None
        changes.fifo = path
        with contextlib.suppress(_FoundError):
            yield changes
    if not changes.is_heard:
        log.audit("WARNING", host=host, what="rsync's log", reason="it was not heard")


def separate(store: Store, host: str, changes: Changes) -> int:
    """Make each file that a transfer has changed, and that had several names, one name.

    Which of them the change was meant for only the client knows. The others go, and
    the one that stays is doubted: the client's next transfer brings them all, and of
    those that are still one with it only the names. Where that makes few names, all
    other files of several names are made one name as well, though not doubted: what
    else has changed at the client harms nobody then. Returns how many had changed.
    Raises OSError; OverflowError where a client has more of them than can be managed.
    """
    if not changes.numbers:
        return 0
    if len(changes.numbers) > MAX_SHARED:
        raise OverflowError("too many files with several names have changed")
    top = store.current(host)
    with contextlib.closing(_names(top)) as names:
        are_few = next(itertools.islice(names, MAX_NAMES, None), None) is None
    kept: set[int] = set()
    for one in _names(top):
        number = one.status.st_ino
        if number in kept:
            os.unlink(one.name, dir_fd=one.directory)
        elif are_few or number in changes.numbers:
            kept.add(number)
            if number in changes.numbers:
                _doubt(one)
    # When it is true: a run that was killed before this is done once more.
    text = " ".join(map(str, kept))
    files.write_atomically(_note(store, host), text.encode("ascii"), mode=0o600)
    return len(changes.numbers)


def _doubt(one: _Name) -> None:
    times = (one.status.st_atime_ns, DOUBTED_NS)
    os.utime(one.name, ns=times, dir_fd=one.directory, follow_symlinks=False)


def _note(store: Store, host: str) -> Path:
    """Where it is noted which files the last transfer left one name of."""
    return store.lock_path(host).with_suffix(".separated")


class _Name(NamedTuple):
    """One of the names of a file that has several."""

    directory: int  # file descriptor
    name: str
    status: os.stat_result


def _names(top: Path) -> Generator[_Name, None, None]:
    """All names of plain files that have several; no link is followed.

    Each directory is read to its end first, so that names may be removed meanwhile.
    """
    root = os.open(top, _DIRECTORY)
    try:
        waiting, length = ["."], 1
        while waiting:
            path = waiting.pop()
            length -= len(path)
            with contextlib.suppress(OSError):  # closed to us, or a path too long
                directory = os.open(path, _DIRECTORY, dir_fd=root)
                try:
                    below, names = _look_into(directory)
                    yield from names
                finally:
                    os.close(directory)
                waiting += [f"{path}/{name}" for name in below]
                length += sum(len(path) + 1 + len(name) for name in below)
            if length > MAX_WAITING:
                raise OverflowError("there are too many directories")
    finally:
        os.close(root)


def _look_into(directory: int) -> tuple[list[str], list[_Name]]:
    """Names of the directories in one, and of the files that have more names."""
    below, names = [], []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.name)
            elif entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                if status.st_nlink > 1:
                    names.append(_Name(directory, entry.name, status))
    return below, names
