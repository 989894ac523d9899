"""An index of the names in a client's trees, which tells a search where not to look.

It holds which names each directory has in any of the trees, and nothing of what they
are: what a search finds is looked at on disc as ever, so that an index can only leave
something out. Therefore it is used for trees alone that are, by what btrfs says of
them, what they were when it was made (D28).

A file for each host, mode 0600: the path of each directory, "/" or "/etc", and the
names in it in no order, each ended by a NUL, in UTF-8 with surrogates for other bytes;
then JSON that says which trees it covers; then that text's length in four bytes.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from byteback.errors import RefusedError
from byteback.model.pattern import Deep, Literal, Pattern, Wild
from byteback.model.snapshot import CURRENT
from byteback.server import host_state
from byteback.server.store import Store
from byteback.tools.subvolume import Subvolume

MAX_SIZE = 1 << 27  # bytes; a search can map that
MAX_DIRECTORIES = 10_000  # that a search is led to; for more it looks everywhere
MAX_CHARACTERS = 1 << 24  # of their paths and of those above them
MAX_SOUGHT = 8  # names, each in one go through the index; more are all sought in one
MAX_WILD = 100  # patterns for names: with more it is as well to look everywhere
VERSION = 1
_LENGTH_BYTES = 4
_STEP = 1000  # names from one look at the time to the next

Identity = list[str | int]  # which tree it is, and that it is as it was
Identities = Mapping[str, Identity]


def path_of(store: Store, host: str) -> Path:
    """Where the index of ``host`` is, should there be one."""
    return store.lock_path(host).with_suffix(".names")


def identify(store: Store, host: str, trees: Mapping[str, Subvolume]) -> Identities:
    """What tells each tree that can be covered from what it may become.

    ``trees`` are those that nobody has written to, and ``current``, which only
    transfers change: each of them writes down its beginning and its end. Whether btrfs
    has a change on disc yet, they do not wait for.
    """
    found: dict[str, Identity] = {}
    for name, subvolume in trees.items():
        if name != CURRENT:
            found[name] = [subvolume.uuid.hex()]
        elif (since := host_state.finished_since(store, host)) is not None:
            found[name] = [subvolume.uuid.hex(), subvolume.changed, since]
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
        wanted = _last_names(patterns)
        if wanted is None or not set(self.covered).issuperset(trees):
            return None
        literals, wilds = wanted
        led = _Led()
        if wilds or len(literals) > MAX_SOUGHT:
            is_led = self._sift(literals, wilds, led, step)
        else:
            is_led = all(self._find(name, led, step) for name in literals)
        return led.paths if is_led else None

    def _find(self, name: str, led: _Led, step: Callable[[], None]) -> bool:
        step()
        needle = b"\0" + _encode(name) + b"\0"
        at = self.data.find(needle, 0, self.end)
        while at >= 0:
            step()
            # Names have no slash, and so it is a path's. The first is not after a NUL.
            start = self.data.rfind(b"\0/", 0, at) + 1
            path = self.data[start : self.data.find(b"\0", start, self.end)]
            if not led.add(path):
                return False
            at = self.data.find(needle, at + len(needle), self.end)
        return True

    def _sift(
        self,
        literals: Collection[str],
        wilds: Collection[Wild],
        led: _Led,
        step: Callable[[], None],
    ) -> bool:
        position = count = 0
        path = b""
        is_led = False
        while position < self.end:
            end = self.data.find(b"\0", position, self.end)
            name = self.data[position:end]
            position = end + 1
            if name.startswith(b"/"):
                path, is_led = name, False
            elif not is_led:
                text = _decode(name)
                is_led = text in literals or any(w.matches(text) for w in wilds)
                if is_led and not led.add(path):
                    return False
            count += 1
            if count % _STEP == 0:
                step()
        return True


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


def _last_names(patterns: Sequence[Pattern]) -> tuple[set[str], list[Wild]] | None:
    """The names that the patterns can end with; None if that leads nowhere.

    Without a ``**/`` among them little is looked at anyway.
    """
    literals: set[str] = set()
    wilds: dict[str, Wild] = {}
    is_deep = False
    for pattern in patterns:
        is_deep = is_deep or any(isinstance(one, Deep) for one in pattern.components)
        match pattern.components[-1:]:
            case (Literal(name),):
                literals.add(name)
            case (Wild() as wild,):
                wilds[wild.regex.pattern] = wild
            case (Deep(),):
                return None
    is_worthwhile = is_deep and len(wilds) <= MAX_WILD
    return (literals, list(wilds.values())) if is_worthwhile else None


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


def is_up_to_date(
    store: Store, host: str, names: Collection[str], present: Identities
) -> bool:
    """Whether a new index would cover no more than the old one, or get as far.

    ``names`` are all trees, ``present`` what is known of ``current``.
    """
    found = _read(path_of(store, host))
    return (
        found is not None
        and set(names) <= found.trees.keys()
        and all(found.trees.get(name) == one for name, one in present.items())
    )


class _File(NamedTuple):
    """An index as it lies on disc."""

    data: mmap.mmap
    end: int
    trees: Mapping[str, Identity | None]  # all there were; None: cannot be covered
    is_whole: bool  # else it is only a note that making one was given up


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
            return _File(data, end, dict(about["trees"]), about["is_whole"])
    return None


def write(
    path: Path,
    directories: Iterable[tuple[str, Iterable[str]]],
    trees: Mapping[str, Identity | None],
    *,
    is_whole: bool = True,
) -> None:
    """Put an index of ``directories`` in place of an old one.

    If it cannot be finished the old one stays. Raises RefusedError if it gets too
    large, OSError, and what ``directories`` does.
    """
    beside = path.with_suffix(".names-new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    about = {"version": VERSION, "trees": dict(trees), "is_whole": is_whole}
    words = json.dumps(about).encode("ascii")
    try:
        with os.fdopen(os.open(beside, flags, 0o600), "wb") as file:
            size = 0
            for place, names in directories:
                size += file.write(_encode("\0".join([place, *names, ""])))
                if size > MAX_SIZE:
                    raise RefusedError("there are too many names for an index")
            file.write(words + len(words).to_bytes(_LENGTH_BYTES, "big"))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
