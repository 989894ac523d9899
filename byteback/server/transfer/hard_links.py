"""Keeps what is one file in ``current`` from standing for several of the client (D34).

rsync --inplace writes into whatever a name leads to. Where two names were one file at
the client and are two now, what it writes to one of them is in the other as well, and
it does not say so. So its own log of what it changes is read while it runs.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NamedTuple

from byteback.errors import BusyError
from byteback.server.store import shortage, tree
from byteback.server.store.layout import Store
from byteback.server.transfer import recheck
from byteback.server.transfer.change_log import MAX_SHARED, Changes
from byteback.system import fifo, files
from byteback.system.btrfs import subvolume

MAX_NOTE = 1 << 24  # bytes
MAX_NAMES = 100_000  # of all such files, which are few enough to be linked anew

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def heard(store: Store, client: str) -> Iterator[Changes]:
    """The changes of a transfer, as its rsync logs them to ``fifo``.

    None where ``current`` is empty: a first backup changes nothing. Raises BusyError.
    """
    current, note = store.current(client), _note(store, client)
    changes = Changes(current, _separated(store, client))
    # Right for the very next transfer alone, whatever becomes of it.
    forget(store, client)
    with os.scandir(current) as entries:
        is_empty = next(entries, None) is None
    if is_empty:
        yield changes
        return
    changes.fifo = note.with_suffix(".log")
    try:
        with contextlib.closing(changes), _listening(changes.fifo, changes):
            yield changes
    except TimeoutError:  # only an rsync that was taken over leaves one behind
        raise BusyError(
            "a process of this transfer goes on",
            hint="the server's administrator can end it",
        ) from None


@contextlib.contextmanager
def _listening(path: Path, changes: Changes) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(fifo.listening(path, changes.take))
        except OSError as error:
            what = f"the server cannot follow this transfer: {error.strerror}"
            raise shortage.failure(what, error) from None
        yield


def is_second(store: Store, client: str) -> bool:
    """True if the next transfer brings what the one before had to separate."""
    return _separated(store, client) is not None


def forget(store: Store, client: str) -> None:
    """To be called before anything else writes to ``current``: it may make links."""
    _note(store, client).unlink(missing_ok=True)


def separate(store: Store, client: str, changes: Changes) -> int:
    """Make each file that a transfer has changed, and that had several names, one name.

    Which of them the change was meant for only the client knows. The one stays that
    was changed last, for it may be the only one that has what the client has; it is
    doubted, and the client's next transfer brings the others, and of those that are
    still one with it only the names. Where that makes few names, all other files of
    several names are made one name as well, though not doubted: what else has changed
    at the client does no harm then. Returns how many had changed.
    Raises OSError; OverflowError where a client has more of them than can be managed.
    """
    top = store.current(client)
    numbers = changes.numbers | _below(top, changes)
    if not numbers:
        return 0
    if len(numbers) > MAX_SHARED:
        raise OverflowError("too many files with several names have changed")
    with contextlib.closing(_names(top)) as names:
        are_few = next(itertools.islice(names, MAX_NAMES, None), None) is None
    chosen = {
        number: path
        for number, path in changes.paths.items()
        if _doubt_at(top, path, number)
    }
    kept: set[int] = set()
    for one in _names(top):
        number = one.status.st_ino
        if number in kept or chosen.get(number, one.path) != one.path:
            os.unlink(one.name, dir_fd=one.directory)
        elif are_few or number in numbers:
            kept.add(number)
            if number in numbers:
                recheck.doubt(one.directory, one.name, one.status)
    # When it is true: a run that was killed before this is done once more.
    text = " ".join([_tree_id(top), *map(str, kept | chosen.keys())])
    files.write_atomically(_note(store, client), text.encode("ascii"), mode=0o600)
    return len(numbers)


def _below(top: Path, changes: Changes) -> set[int]:
    """The files that may have changed under names too long for rsync's log."""
    beginnings = tuple(changes.beginnings)
    if not beginnings:
        return set()
    return {
        one.status.st_ino
        for one in _names(top)
        if one.path.startswith(beginnings) and not changes.is_spared(one.status.st_ino)
    }


def _doubt_at(top: Path, path: str, number: int) -> bool:
    """Doubt a file if that is still one of its names. Raises OSError."""
    parent, _, name = path.rpartition("/")
    directory = tree.open_beneath(top, parent)
    if directory is None:
        return False
    try:
        status = tree.status(directory, name)
        if status is None or status.st_ino != number:
            return False
        recheck.doubt(directory, name, status)
        return True
    finally:
        os.close(directory)


def _note(store: Store, client: str) -> Path:
    """The note of the files that the last transfer left one name of.

    And of which tree: ``current`` may be put back to a snapshot, in which files have
    the same numbers, and names that were removed here.
    """
    return store.lock_path(client).with_suffix(".separated")


def _separated(store: Store, client: str) -> frozenset[int] | None:
    """The files that have one name by what is noted; None if that is void."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        text = files.read_regular(_note(store, client), MAX_NOTE).decode("ascii")
        tree_id, *numbers = text.split()
        if tree_id == _tree_id(store.current(client)):
            return frozenset(map(int, numbers))
    return None


def _tree_id(top: Path) -> str:
    fd = os.open(top, _DIRECTORY)
    try:
        found = subvolume.read(fd)
    finally:
        os.close(fd)
    return found.uuid.hex() if found is not None else "none"


class _Name(NamedTuple):
    """One of the names of a file that has several."""

    directory: int  # file descriptor
    name: str
    path: str  # beneath the top
    status: os.stat_result


def _names(top: Path) -> Generator[_Name, None, None]:
    """All names of plain files that have several. Raises as tree.entries_below."""
    with contextlib.closing(tree.entries_below(top)) as entries:
        for directory, path, entry in entries:
            if entry.is_file(follow_symlinks=False):
                status = tree.status(directory, entry.name)
                if status is not None and status.st_nlink > 1:
                    yield _Name(directory, entry.name, path, status)
