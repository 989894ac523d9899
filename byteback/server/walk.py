"""Walks all trees of a client together, guided by patterns.

The patterns are merged into a graph of states, as for a finite automaton over the
components of a path, so that each directory is read once for all of them, literal
names are looked up without reading their directory at all, and a name that no pattern
can lead to is never looked at.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from byteback.errors import RefusedError
from byteback.model.listing import Entry
from byteback.model.pattern import NARROW, Deep, Literal, Pattern, Wild
from byteback.server import tree


@dataclass
class Limits:
    """When a search is given up."""

    results: int
    deadline: float  # of time.monotonic
    steps: int = 0

    @classmethod
    def start(cls, results: int, seconds: float) -> Limits:
        """Limits that count from now."""
        return cls(results, time.monotonic() + seconds)

    def step(self) -> None:
        """Count one name that was looked at; raises RefusedError when time is up."""
        self.steps += 1
        if self.steps % 256 == 0 and time.monotonic() > self.deadline:
            raise RefusedError("the search took too long", hint=NARROW)

    def count_result(self) -> None:
        """Count one entry; raises RefusedError when there are too many."""
        self.results -= 1
        if self.results < 0:
            raise RefusedError("the patterns match too many files", hint=NARROW)


@dataclass(eq=False)
class State:
    """How far patterns have come on the way to one directory or file."""

    literals: dict[str, State] = field(default_factory=dict)
    wilds: list[tuple[Wild, State]] = field(default_factory=list)
    deep: State | None = None  # what a "**/" here leads to
    is_deep: bool = False  # inside a "**/": stays in force in each subdirectory
    is_end: bool = False
    is_end_for_directories: bool = False

    @property
    def needs_listing(self) -> bool:
        """Whether the names of a directory must be read to know what matches."""
        return self.is_deep or bool(self.wilds)

    @property
    def leads_on(self) -> bool:
        """Whether anything beneath could match."""
        return self.is_deep or bool(self.literals or self.wilds or self.deep)


@dataclass
class Place:
    """One directory in all trees that have it."""

    path: str  # "" for the root, else "/etc"
    states: list[State]
    copies: list[tuple[str, int]]  # tree's name and descriptor, newest first

    def close(self) -> None:
        """Close what is open; more than once does no harm."""
        while self.copies:
            with suppress(OSError):
                os.close(self.copies.pop()[1])


@dataclass(frozen=True)
class Candidate:
    """A name in a directory, and what a match of it means."""

    name: str
    states: list[State]
    copies: list[tuple[str, int]]
    directories: list[tuple[str, int]]  # those copies that may be directories

    @property
    def leads_on(self) -> bool:
        """Whether a pattern can match beneath."""
        return any(state.leads_on for state in self.states)

    @property
    def is_wanted(self) -> bool:
        """Whether a pattern ends here."""
        return any(s.is_end or s.is_end_for_directories for s in self.states)


def merge_patterns(patterns: Sequence[Pattern]) -> State:
    """The state in which all patterns start, at the root."""
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
    return start


def walk(
    directory: Path,
    trees: Sequence[str],
    patterns: Sequence[Pattern],
    scope: str,
    limits: Limits,
) -> Iterator[Entry]:
    """All entries that the patterns match in ``trees``, which are in ``directory``.

    ``trees`` are given newest first. For ``scope`` and the order see search.find.
    """
    root = Place("", _closure([merge_patterns(patterns)]), [])
    try:
        for name in trees:
            fd = tree.open_root(directory / name)
            if fd is not None:
                root.copies.append((name, fd))
        itself = Candidate(".", root.states, root.copies, root.copies)
        yield from _entries(itself, "/", scope, limits)
        yield from _walk_below(root, scope, limits)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise RefusedError(
                "too many snapshots and directories to search at once", hint=NARROW
            ) from None
        raise
    finally:
        root.close()


def _walk_below(root: Place, scope: str, limits: Limits) -> Iterator[Entry]:
    # Not recursive: how deep a tree is, its client decides.
    stack = [(root, _candidates(root, limits))]
    try:
        while stack:
            place, candidates = stack[-1]
            candidate = next(candidates, None)
            if candidate is None:
                stack.pop()[0].close()
                continue
            path = f"{place.path}/{candidate.name}"
            if candidate.is_wanted:
                yield from _entries(candidate, path, scope, limits)
            below = _descend(candidate, path)
            if below is not None:
                stack.append((below, _candidates(below, limits)))
    finally:
        for place, _ in stack:
            place.close()


def _closure(states: Sequence[State]) -> list[State]:
    """The states and what they are equal to because "**/" can stand for nothing."""
    found: list[State] = []
    for state in states:
        step: State | None = state
        while step is not None and step not in found:
            found.append(step)
            step = step.deep
    return found


def _candidates(place: Place, limits: Limits) -> Iterator[Candidate]:
    """The names in a directory that a pattern leads to, sorted."""
    if any(state.needs_listing for state in place.states):
        yield from _listed_candidates(place, limits)
        return
    names = {name for state in place.states for name in state.literals}
    for name in sorted(names):
        limits.step()
        states = _after(place.states, name)
        yield Candidate(name, states, place.copies, place.copies)


def _listed_candidates(place: Place, limits: Limits) -> Iterator[Candidate]:
    # Snapshots in which no name of this directory changed share one listing.
    listings: dict[tuple[int, int, int], tree.Listed] = {}
    copies: list[tuple[tuple[str, int], tree.Listed]] = []
    for copy in place.copies:
        key = tree.directory_key(copy[1])
        if key not in listings:
            limits.step()
            listings[key] = tree.list_directory(copy[1], key)
        copies.append((copy, listings[key]))
    names = {name for listed in listings.values() for name in listed.directories}
    for name in sorted(names):
        limits.step()
        states = _after(place.states, name)
        if not states:
            continue
        kinds = [(copy, listed.directories.get(name)) for copy, listed in copies]
        candidate = Candidate(
            name,
            states,
            [copy for copy, kind in kinds if kind is not None],
            [copy for copy, kind in kinds if kind],
        )
        if candidate.is_wanted or candidate.directories:
            yield candidate


def _after(states: Sequence[State], name: str) -> list[State]:
    """The states that ``name`` leads to."""
    found = []
    for state in states:
        literal = state.literals.get(name)
        if literal is not None:
            found.append(literal)
        found += [after for wild, after in state.wilds if wild.matches(name)]
        if state.is_deep and not name.startswith("."):
            found.append(state)
    return _closure(found)


def _descend(candidate: Candidate, path: str) -> Place | None:
    """The directory of that name in all trees that have one, if it matters."""
    if not candidate.leads_on:
        return None
    if len(path.encode("utf-8", "surrogateescape")) >= tree.PATH_MAX:
        return None
    place = Place(path, candidate.states, [])
    for snapshot, parent in candidate.directories:
        fd = tree.open_directory(parent, candidate.name)
        if fd is not None:
            place.copies.append((snapshot, fd))
    return place if place.copies else None


def _entries(
    candidate: Candidate, path: str, scope: str, limits: Limits
) -> Iterator[Entry]:
    """The copies of one path that ``scope`` asks for."""
    chosen: list[tuple[str, int, os.stat_result]] = []
    first_seen: dict[tuple[int, int], str] = {}
    for snapshot, parent in candidate.copies:
        limits.step()
        found = tree.status(parent, candidate.name)
        if found is None or not _is_match(candidate.states, found):
            continue
        version = (found.st_mtime_ns, found.st_size)
        if scope != "versions" or version not in first_seen:
            chosen.append((snapshot, parent, found))
        first_seen[version] = snapshot  # the trees come newest first
        if scope == "newest":
            break
    if scope == "copies":
        chosen.reverse()
    for snapshot, parent, found in chosen:
        limits.count_result()
        entry = tree.read_entry(snapshot, path, parent, candidate.name, found)
        if scope == "versions":
            version = (found.st_mtime_ns, found.st_size)
            entry = replace(entry, first_seen=first_seen[version])
        yield entry


def _is_match(states: Sequence[State], found: os.stat_result) -> bool:
    is_directory = stat.S_ISDIR(found.st_mode)
    return any(s.is_end or (s.is_end_for_directories and is_directory) for s in states)
