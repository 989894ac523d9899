"""Patterns as a finite automaton over the components of a path.

The patterns are merged into a graph of states, so that each directory is read once for
all of them, and a name that no pattern can lead to is never looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from byteback.model.pattern import Deep, Literal, Pattern, Wild


@dataclass(eq=False)
class State:
    """How far patterns have come on the way to one directory or file."""

    literals: dict[str, State] = field(default_factory=dict)
    wilds: list[tuple[Wild, State]] = field(default_factory=list)
    deep: State | None = None  # what a "**/" here leads to
    is_deep: bool = False  # inside a "**/": stays in force in each subdirectory
    is_end: bool = False
    is_end_for_directories: bool = False
    takes_all: bool = False  # all that is beneath matches, hidden or not

    @property
    def needs_listing(self) -> bool:
        """Whether the names of a directory must be read to know what matches."""
        return self.is_deep or self.takes_all or bool(self.wilds)

    @property
    def leads_on(self) -> bool:
        """Whether anything beneath could match."""
        return self.needs_listing or bool(self.literals or self.deep)


def merge_patterns(patterns: Sequence[Pattern], *, with_all_below: bool) -> State:
    """The state in which all patterns start, at the root.

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
    return start


def closure(states: Sequence[State]) -> list[State]:
    """The states and what they are equal to because "**/" can stand for nothing."""
    found: list[State] = []
    for state in states:
        step: State | None = state
        while step is not None and step not in found:
            found.append(step)
            step = step.deep
    return found


def after(states: Sequence[State], name: str) -> list[State]:
    """The states that ``name`` leads to."""
    found = []
    for state in states:
        literal = state.literals.get(name)
        if literal is not None:
            found.append(literal)
        found += [after for wild, after in state.wilds if wild.matches(name)]
        if state.is_deep and not name.startswith("."):
            found.append(state)
        if state.takes_all:
            found.append(_ALL)
    return closure(found)


_ALL = State(is_end=True, takes_all=True)
