"""An index of the names in a client's trees, which tells a search where not to look.

It holds which names each directory has in any of the trees, and nothing of what they
are: what a search finds is looked at on disc as ever, so that an index can only leave
something out. Therefore it is used for trees alone that are, by what btrfs says of
them, what they were when it was made (D28).

A file for each host, mode 0600: names as index_part.py has them, in UTF-8 with
surrogates for other bytes. Then JSON that says which trees it covers; then that text's
length in four bytes. A second file has the names that came later (added_names.py), and
says which trees both cover together.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from byteback.errors import RefusedError
from byteback.model.glob.pattern import Pattern
from byteback.model.glob.sought import read_sought
from byteback.model.snapshot import CURRENT
from byteback.server.search.index_part import Led, Part, encode
from byteback.server.store import state
from byteback.server.store.layout import Store
from byteback.system.btrfs.subvolume import Subvolume
from byteback.system.files import open_regular

MAX_SIZE = 1 << 27  # bytes; a search can map that
VERSION = 1
ADDED = ".names-added"
UNFINISHED = "-new"
CHEAP_S = 10.0  # what takes less to make is made after each backup
SHARE = 20  # what takes more may take one part in so many of the time
_LENGTH_BYTES = 4

Identity = list[str | int]  # which tree it is, and that it is as it was
Identities = Mapping[str, Identity]


def path_of(store: Store, client: str) -> Path:
    """The path of the index of ``client``."""
    return store.lock_path(client).with_suffix(".names")


def added_path_of(store: Store, client: str) -> Path:
    """The path of the names that came after that index was made."""
    return store.lock_path(client).with_suffix(ADDED)


def identify(store: Store, client: str, trees: Mapping[str, Subvolume]) -> Identities:
    """The identity of each tree that an index can cover.

    ``trees`` are those that have not been written to, and ``current``, which only
    transfers change: each of them writes down its beginning and its end. What is
    changed by hand has the number of a later transaction, if all before is committed.
    """
    found: dict[str, Identity] = {}
    for name, subvolume in trees.items():
        identity: Identity = [subvolume.uuid.hex(), subvolume.changed]
        if name == CURRENT:
            since = state.finished_since(store, client)
            if since is None:
                continue
            identity.append(since)
        found[name] = identity
    return found


class Index(NamedTuple):
    """An index that was read, or rather mapped; ``covered`` are trees as they are."""

    parts: Sequence[Part]
    covered: Collection[str]

    def lead(
        self,
        trees: Iterable[str],
        patterns: Sequence[Pattern],
        step: Callable[[], None],
    ) -> Collection[str] | None:
        """Paths of the only directories in which a match may be, and of all above.

        None if anything may be anywhere. ``step`` is called now and then.
        """
        sought = read_sought(patterns)
        if sought is None or not set(self.covered).issuperset(trees):
            return None
        led = Led()
        is_led = all(part.lead(sought, led, step) for part in self.parts)
        return led.paths if is_led else None


def load(store: Store, client: str, trees: Mapping[str, Subvolume]) -> Index | None:
    """The index of ``client``, for the trees that are what they were; None for none.

    ``trees`` is what lineage.read_trees tells now.
    """
    found = read(store, client)
    if found is None or not found.is_whole:
        return None
    present = identify(store, client, trees)
    covered = {n for n, one in present.items() if found.trees.get(n) == one}
    return Index(found.parts, covered)


def is_due(
    store: Store, client: str, names: Collection[str], present: Identities
) -> bool:
    """True if a new index would cover more than the old one, and is due.

    ``names`` are all trees, ``present`` what is known of ``current``. A client decides
    when it transfers, and how long its index takes: it is not to keep others waiting.
    """
    found = read(store, client)
    if found is None:
        return True
    if found.taken > CHEAP_S and 0 <= time.time() - found.made < SHARE * found.taken:
        return False
    return not _covers(found, names, present)


def is_up_to_date(
    store: Store, client: str, names: Collection[str], present: Identities
) -> bool:
    """True if no time makes a new index due, but only a change; see is_due."""
    found = read(store, client)
    return found is not None and _covers(found, names, present)


def _covers(found: Files, names: Collection[str], present: Identities) -> bool:
    return set(names) <= found.trees.keys() and all(
        found.trees.get(name) == one for name, one in present.items()
    )


class Files(NamedTuple):
    """An index as it lies on disc, in one file or two."""

    parts: Sequence[Part]
    trees: Mapping[str, Identity | None]  # all there were; None: cannot be covered
    is_whole: bool  # else it is only a note that making one was given up
    made: float  # seconds since 1970, of the first file
    taken: float  # seconds that it took


def read(store: Store, client: str) -> Files | None:
    """Map what there is; None if there is nothing, or nothing of use."""
    first = _read(path_of(store, client))
    if first is None:
        return None
    later = _read(added_path_of(store, client))
    if later is None or later.base != first.files.made:
        return first.files
    return first.files._replace(
        parts=[*first.files.parts, *later.files.parts], trees=later.files.trees
    )


class _File(NamedTuple):
    """One of the files."""

    files: Files
    base: float | None  # of a second one: when the first was made


def _read(path: Path) -> _File | None:
    try:
        fd = open_regular(path)
        try:
            data = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(fd)
    except (OSError, ValueError):  # there is none, or an empty file
        return None
    with contextlib.suppress(ValueError, KeyError, TypeError):
        start = len(data) - _LENGTH_BYTES
        end = start - int.from_bytes(data[start:], "big")
        about = json.loads(data[max(end, 0) : start])
        if end >= 0 and about["version"] == VERSION:
            times = float(about["made"]), float(about["taken"])
            trees = dict(about["trees"])
            files = Files([Part(data, end)], trees, about["is_whole"], *times)
            return _File(files, about.get("base"))
    return None


def write(
    path: Path,
    directories: Iterable[tuple[str, Iterable[str]]],
    trees: Mapping[str, Identity | None],
    *,
    is_whole: bool = True,
    taken: float = 0.0,
    base: float | None = None,
) -> None:
    """Put an index of ``directories`` in place of an old one.

    If it cannot be finished the old one stays. ``taken`` are seconds that went into it
    already, ``base`` is when the file was made that this one goes with. Only one at a
    time may write an index. Raises RefusedError if it gets too large, OSError, and what
    ``directories`` does.
    """
    beside = path.with_suffix(f"{path.suffix}{UNFINISHED}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    about = {"version": VERSION, "trees": dict(trees), "is_whole": is_whole}
    if base is not None:
        about["base"] = base
    started = time.monotonic() - taken
    try:
        with os.fdopen(os.open(beside, flags, 0o600), "wb") as file:
            size = 0
            for place, names in directories:
                size += file.write(encode("\0".join([place, *names, ""])))
                if size > MAX_SIZE:
                    raise RefusedError("there are too many names for an index")
            times = {"made": time.time(), "taken": time.monotonic() - started}
            words = json.dumps(about | times).encode("ascii")
            file.write(words + len(words).to_bytes(_LENGTH_BYTES, "big"))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()
