"""Finds in one file of an index the directories that have sought names.

A file is the path of each directory, "/" or "/etc", and the names in it in no order,
each ended by a NUL. A directory comes before all that is below it, and that before
anything else.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import NamedTuple

from byteback.model.glob.sought import Sought

MAX_DIRECTORIES = 10_000  # that a search is led to; for more it looks everywhere
MAX_CHARACTERS = 1 << 24  # of their paths and of those above them
MAX_SOUGHT = 8  # names, each in one go through the index; more are all sought in one
_STEP = 1000  # names from one look at the time to the next


class Part(NamedTuple):
    """The names in a file that is mapped."""

    data: mmap.mmap
    end: int  # of the names

    def lead(self, sought: Sought, led: Led, step: Callable[[], None]) -> bool:
        """Add the directories that have such names; False if there are too many."""
        if sought.wilds or len(sought.literals) > MAX_SOUGHT:
            return self._sift(sought, led, step)
        return all(self._find(sought, one, led, step) for one in sought.literals)

    def _start(self, top: bytes) -> int:
        """The position of a directory; the end if there is none."""
        if not top:
            return 0
        at = self.data.find(b"\0" + top + b"\0", 0, self.end)
        return self.end if at < 0 else at + 1

    def _find(
        self, sought: Sought, name: str, led: Led, step: Callable[[], None]
    ) -> bool:
        step()
        top = encode(sought.top)
        first = self._start(top)
        needle = b"\0" + encode(name) + b"\0"
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

    def _sift(self, sought: Sought, led: Led, step: Callable[[], None]) -> bool:
        top = encode(sought.top)
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
                text = decode(name)
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


class Led:
    """The directories that a search is led to, as walk.py writes their paths."""

    def __init__(self) -> None:
        self.paths = {""}
        self._directories = 0
        self._characters = 0

    def add(self, raw: bytes) -> bool:
        """Add one and all above it; False if there are too many."""
        self._directories += 1
        path = "" if raw == b"/" else decode(raw)
        while path not in self.paths:
            self.paths.add(path)
            self._characters += len(path)
            if self._characters > MAX_CHARACTERS:
                return False
            path = path.rpartition("/")[0]
        return self._directories <= MAX_DIRECTORIES


def encode(text: str) -> bytes:
    """A path or name as a file of an index has it."""
    return text.encode("utf-8", "surrogateescape")


def decode(raw: bytes) -> str:
    """What encode has made bytes of."""
    return raw.decode("utf-8", "surrogateescape")
