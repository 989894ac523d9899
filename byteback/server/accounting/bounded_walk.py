"""Walks through a tree for the ledger, as far as its time and memory go."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

MAX_WAITING = 1 << 24  # characters: paths of directories still to be looked into

Seen = TypeVar("Seen")


class CutOffError(Exception):
    """There are more names than could be looked at."""


def walk(
    top: str, deadline: float, look: Callable[[os.DirEntry[str]], Seen]
) -> Iterator[Seen]:
    """Yield what ``look`` returns for each name below ``top``; no link is followed.

    ``deadline`` is a time of time.monotonic. A directory that is closed to us is left
    out, and so is the rest of one for whose next name ``look`` raises OSError. Raises
    CutOffError at the end if there was more.
    """
    waiting, length = [top], 0
    while waiting:
        place = waiting.pop()
        length -= len(place)
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    yield look(entry)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                        length += len(entry.path)
                    if length > MAX_WAITING or time.monotonic() >= deadline:
                        raise CutOffError
        except OSError:  # closed to us, gone, or a path too long
            continue


def count(top: str, timeout_s: float) -> tuple[int, bool]:
    """How many names were found in that time, and whether those are all."""
    found = 0
    try:
        for _ in walk(top, time.monotonic() + timeout_s, _ignore):
            found += 1
    except CutOffError:
        return found, False
    return found, True


def _ignore(entry: os.DirEntry[str]) -> None:
    """A name alone is enough to count it."""
