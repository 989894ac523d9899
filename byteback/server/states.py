"""Which names in a directory on disc a search has to look at."""

from __future__ import annotations

from collections.abc import Sequence

from byteback.model.states import State, after, closure, merge_patterns
from byteback.server.tree import Listed

__all__ = ["State", "after", "closure", "interesting", "merge_patterns"]


def interesting(states: Sequence[State], listed: Listed) -> set[str]:
    """The names in a directory that lead anywhere: what is none costs no step."""
    names: set[str] = set()
    for state in states:
        if state.takes_all:
            return set(listed.names)
        names |= state.literals.keys() & listed.names.keys()
        if state.is_deep:
            names.update(d for d in listed.directories if not d.startswith("."))
        for wild, _ in state.wilds:
            names.update(name for name in listed.names if wild.matches(name))
    return names
