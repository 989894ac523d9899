"""Patterns as a finite automaton over the components of a path.

The patterns are merged into a graph of states, so that each directory is read once for
all of them, and a name that no pattern can lead to is never looked at.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from byteback.model.glob.pattern import Deep, Literal, Pattern, Wild


class State:
    """The state of one pattern, or of several that are alike so far."""

    def __init__(
        self, *, is_deep: bool = False, is_end: bool = False, takes_all: bool = False
    ) -> None:
        self.literals: dict[str, State] = {}
        self.wilds: list[tuple[Wild, State]] = []
        self.deep: State | None = None  # what a "**/" here leads to
        self.is_deep = is_deep  # inside a "**/": stays in force in each subdirectory
        self.is_end = is_end
        self.is_end_for_directories = False
        self.takes_all = takes_all  # all that is beneath matches, hidden or not


class Progress:
    """The states of all patterns on the way to one directory or file."""

    __slots__ = (
        *("_deeper", "_states", "is_deep", "is_end", "is_end_for_directories"),
        *("leads_on", "literals", "needs_listing", "only", "takes_all", "wilds"),
    )

    def __init__(self, states: Sequence[State]) -> None:
        self._states = states
        self._deeper: Progress | None = None
        self.literals = [state.literals for state in states if state.literals]
        self.wilds = [wild for state in states for wild in state.wilds]
        self.is_deep = any(state.is_deep for state in states)
        self.takes_all = any(state.takes_all for state in states)
        # Whether a pattern ends here.
        self.is_end = any(state.is_end for state in states)
        self.is_end_for_directories = any(s.is_end_for_directories for s in states)
        # Whether the names of a directory must be read to know what matches.
        self.needs_listing = bool(self.is_deep or self.takes_all or self.wilds)
        # The only names that could lead anywhere beside those of directories, None for
        # any: most names need not be kept to read a large tree.
        self.only: Container[str] | None = None
        if not (self.wilds or self.takes_all or len(self.literals) > 1):
            self.only = self.literals[0] if self.literals else ()
        # Whether anything beneath could match.
        self.leads_on = bool(
            self.needs_listing or self.literals or any(state.deep for state in states)
        )

    def is_match(self, *, is_directory: bool) -> bool:
        """True if some pattern matches here."""
        return self.is_end or (self.is_end_for_directories and is_directory)

    def after(self, name: str) -> Progress:
        """The states after ``name``."""
        found = []
        for state in self._states:
            if name in state.literals:
                found.append(state.literals[name])
            found += [after for wild, after in state.wilds if wild.matches(name)]
        is_hidden = name.startswith(".")
        if found or is_hidden:
            return _progress(found + self._carried(is_hidden=is_hidden))
        # The many names that are nothing but a way deeper share what follows.
        if self._deeper is None:
            self._deeper = _progress(self._carried(is_hidden=False))
            if self._deeper._states == self._states:
                self._deeper = self
        return self._deeper

    def _carried(self, *, is_hidden: bool) -> list[State]:
        """The states that any name leads to."""
        deep = [s for s in self._states if s.is_deep and not is_hidden]
        return [*deep, _ALL] if self.takes_all else deep


def merge_patterns(
    patterns: Sequence[Pattern], *, with_all_below: bool = False
) -> Progress:
    """The states of all patterns at the root.

    ``with_all_below`` takes what is in a directory that matches, too.
    """
    start = State()
    wilds: dict[tuple[int, str], State] = {}
    for pattern in patterns:
        state = start
        for component in pattern.components:
            match component:
                case Literal(name):
                    state = state.literals.setdefault(name, State())
                case Deep():
                    if state.deep is None:
                        state.deep = State(is_deep=True)
                    state = state.deep
                case Wild(regex):
                    key = (id(state), regex.pattern)
                    if key not in wilds:
                        wilds[key] = State()
                        state.wilds.append((component, wilds[key]))
                    state = wilds[key]
        if pattern.directories_only:
            state.is_end_for_directories = True
        else:
            state.is_end = True
        state.takes_all = with_all_below
    return _progress([start])


def _progress(states: Sequence[State]) -> Progress:
    """The states, and what they are equal to because "**/" can stand for nothing."""
    found: list[State] = []
    for state in states:
        step: State | None = state
        while step is not None and step not in found:
            found.append(step)
            step = step.deep
    return Progress(found)


_ALL = State(is_end=True, takes_all=True)
