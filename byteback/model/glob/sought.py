"""The names that patterns with a ``**/`` look for, without reading directories."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import NamedTuple

from byteback.model.glob.pattern import Deep, Literal, Pattern, Wild

MAX_WILD = 100  # patterns for names: with more it is as well to look everywhere


class Sought(NamedTuple):
    """Names, and below which directory: "" for the root, else "/etc"."""

    top: str
    literals: Collection[str]
    wilds: Collection[Wild]


def read_sought(patterns: Sequence[Pattern]) -> Sought | None:
    """The names that the patterns can end with; None if that leads nowhere.

    Without a ``**/`` among them little is looked at anyway.
    """
    literals: set[str] = set()
    wilds: dict[str, Wild] = {}
    for pattern in patterns:
        match pattern.components[-1:]:
            case (Literal(name),):
                literals.add(name)
            case (Wild() as wild,):
                wilds[wild.regex.pattern] = wild
            case (Deep(),):
                return None
    is_deep = any(isinstance(c, Deep) for one in patterns for c in one.components)
    if not is_deep or len(wilds) > MAX_WILD:
        return None
    alike = zip(*map(_directories, patterns), strict=False)
    top = itertools.takewhile(lambda names: len(set(names)) == 1, alike)
    return Sought("".join(f"/{names[0]}" for names in top), literals, wilds.values())


def _directories(pattern: Pattern) -> list[str]:
    """The directories that a pattern begins with by their names."""
    found = []
    for component in pattern.components[:-1]:
        if not isinstance(component, Literal):
            break
        found.append(component.name)
    return found
