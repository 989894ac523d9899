"""Which names in a directory on disc a search has to look at."""

from __future__ import annotations

from byteback.model.glob.automaton import Progress, merge_patterns
from byteback.server.store.tree import Names

__all__ = ["Progress", "interesting", "merge_patterns"]


def interesting(progress: Progress, names: Names) -> set[str]:
    """The names in a directory that lead anywhere: what is none costs no step."""
    found: set[str] = set()
    if not names:
        return found
    if progress.takes_all:
        return set(names)
    for literals in progress.literals:
        found |= literals.keys() & names.keys()
    if progress.is_deep:
        found.update(
            name
            for name, is_directory in names.items()
            if is_directory and not name.startswith(".")
        )
    for wild, _ in progress.wilds:
        found.update(filter(wild.regex.fullmatch, names))
    return found
