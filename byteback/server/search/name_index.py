"""An index of the names in a client's trees, which tells a search where not to look.

It holds which names each directory has in any of the trees, and nothing of what they
are: what a search finds is looked at on disc as ever, so that an index can only leave
something out. Therefore it is used for trees alone that are, by what btrfs says of
them, what they were when it was made (D28).

A file for each host, mode 0600: the path of each directory, "/" or "/etc", and the
names in it in no order, each ended by a NUL, in UTF-8 with surrogates for other bytes.
A directory comes before all that is below it, and that before anything else. Then JSON
that says which trees it covers; then that text's length in four bytes.
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
from byteback.model.glob.sought import Sought, read_sought
from byteback.model.snapshot import CURRENT
from byteback.server.store import state
from byteback.server.store.layout import Store
from byteback.system.btrfs.subvolume import Subvolume

MAX_SIZE = 1 << 27  # bytes; a search can map that
MAX_DIRECTORIES = 10_000  # that a search is led to; for more it looks everywhere
MAX_CHARACTERS = 1 << 24  # of their paths and of those above them
MAX_SOUGHT = 8  # names, each in one go through the index; more are all sought in one
VERSION = 1
UNFINISHED = ".names-new"
CHEAP_S = 10.0  # what takes less to make is made after each backup
SHARE = 20  # what takes more may take one part in so many of the time
_LENGTH_BYTES = 4
_STEP = 1000  # names from one look at the time to the next

Identity = list[str | int]  # which tree it is, and that it is as it was
Identities = Mapping[str, Identity]


def path_of(store: Store, host: str) -> Path:
    """The path of the index of ``host``."""
    return store.lock_path(host).with_suffix(".names")


def identify(store: Store, host: str, trees: Mapping[str, Subvolume]) -> Identities:
    """The identity of each tree that an index can cover.

    ``trees`` are those that have not been written to, and ``current``, which only
    transfers change: each of them writes down its beginning and its end. What is
    changed by hand has the number of a later transaction, if all before is committed.
    """
    found: dict[str, Identity] = {}
    for name, subvolume in trees.items():
        identity: Identity = [subvolume.uuid.hex(), subvolume.changed]
        if name == CURRENT:
            since = state.finished_since(store, host)
            if since is None:
                continue
            identity.append(since)
        found[name] = identity
    return found


class Index(NamedTuple):
    """An index that was read, or rather mapped; ``covered`` are trees as they are."""

    data: mmap.mmap
    end: int  # of the names
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
        led = _Led()
        if sought.wilds or len(sought.literals) > MAX_SOUGHT:
            is_led = self._sift(sought, led, step)
        else:
            is_led = all(self._find(sought, one, led, step) for one in sought.literals)
        return led.paths if is_led else None

    def _start(self, top: bytes) -> int:
        """The position of a directory; the end if there is none."""
        if not top:
            return 0
        at = self.data.find(b"\0" + top + b"\0", 0, self.end)
        return self.end if at < 0 else at + 1

    def _find(
        self, sought: Sought, name: str, led: _Led, step: Callable[[], None]
    ) -> bool:
        step()
        top = _encode(sought.top)
        first = self._start(top)
        needle = b"\0" + _encode(name) + b"\0"
        at = self.data.find(needle, first, self.end)
        while at >= 0:
            step()
            # Names have no slash, and so it is a path's. The first is not after a NUL.
            start = max(self.data.rfind(b"\0/", first, at) + 1, first)
            path = self.data[start : self.data.find(b"\0", start, self.end)]
            if not _is_within(path, top):
                return True
            if not led.add(path):
                return False
            at = self.data.find(needle, at + len(needle), self.end)
        return True

    def _sift(self, sought: Sought, led: _Led, step: Callable[[], None]) -> bool:
        top = _encode(sought.top)
        position, count = self._start(top), 0
        path = b""
        is_led = False
        while position < self.end:
            end = self.data.find(b"\0", position, self.end)
            name = self.data[position:end]
            position = end + 1
            if name.startswith(b"/"):
                path, is_led = name, False
                if not _is_within(path, top):
                    return True
            elif not is_led:
                text = _decode(name)
                is_led = text in sought.literals or any(
                    wild.matches(text) for wild in sought.wilds
                )
                if is_led and not led.add(path):
                    return False
            count += 1
            if count % _STEP == 0:
                step()
        return True


def _is_within(path: bytes, top: bytes) -> bool:
    return path == top or path.startswith(top + b"/")


class _Led:
    """The directories that a search is led to, as walk.py writes their paths."""

    def __init__(self) -> None:
        self.paths = {""}
        self._directories = 0
        self._characters = 0

    def add(self, raw: bytes) -> bool:
        """Add one and all above it; False if there are too many."""
        self._directories += 1
        path = "" if raw == b"/" else _decode(raw)
        while path not in self.paths:
            self.paths.add(path)
            self._characters += len(path)
            if self._characters > MAX_CHARACTERS:
                return False
            path = path.rpartition("/")[0]
        return self._directories <= MAX_DIRECTORIES


def load(store: Store, host: str, trees: Mapping[str, Subvolume]) -> Index | None:
    """The index of ``host``, for the trees that are what they were; None for none.

    ``trees`` is what lineage.read_trees tells now.
    """
    found = _read(path_of(store, host))
    if found is None or not found.is_whole:
        return None
    present = identify(store, host, trees)
    covered = {n for n, one in present.items() if found.trees.get(n) == one}
    return Index(found.data, found.end, covered)


def is_due(
    store: Store, host: str, names: Collection[str], present: Identities
) -> bool:
    """True if a new index would cover more than the old one, and is due.

    ``names`` are all trees, ``present`` what is known of ``current``. A client decides
    when it transfers, and how long its index takes: it is not to keep others waiting.
    """
    found = _read(path_of(store, host))
    if found is None:
        return True
    if found.taken > CHEAP_S and 0 <= time.time() - found.made < SHARE * found.taken:
        return False
    return not set(names) <= found.trees.keys() or any(
        found.trees.get(name) != one for name, one in present.items()
    )


class _File(NamedTuple):
    """An index as it lies on disc."""

    data: mmap.mmap
    end: int
    trees: Mapping[str, Identity | None]  # all there were; None: cannot be covered
    is_whole: bool  # else it is only a note that making one was given up
    made: float  # seconds since 1970
    taken: float  # seconds that it took


def _read(path: Path) -> _File | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
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
            return _File(data, end, dict(about["trees"]), about["is_whole"], *times)
    return None


def write(
    path: Path,
    directories: Iterable[tuple[str, Iterable[str]]],
    trees: Mapping[str, Identity | None],
    *,
    is_whole: bool = True,
    taken: float = 0.0,
) -> None:
    """Put an index of ``directories`` in place of an old one.

    If it cannot be finished the old one stays. ``taken`` are seconds that went into it
    already. Only one at a time may write an index. Raises RefusedError if it gets too
    large, OSError, and what ``directories`` does.
    """
    beside = path.with_suffix(UNFINISHED)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    about = {"version": VERSION, "trees": dict(trees), "is_whole": is_whole}
    started = time.monotonic() - taken
    try:
        with os.fdopen(os.open(beside, flags, 0o600), "wb") as file:
            size = 0
            for place, names in directories:
                size += file.write(_encode("\0".join([place, *names, ""])))
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


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
