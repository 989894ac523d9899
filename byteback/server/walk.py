"""Walks all trees of a client together, guided by patterns."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import NamedTuple

from byteback.errors import RefusedError
from byteback.model.difference import Difference, compare
from byteback.model.listing import Entry
from byteback.model.pattern import NARROW, Pattern
from byteback.server import states, tree
from byteback.server.lineage import Chains
from byteback.server.places import Place, Run, append, locate
from byteback.server.search_limits import Limits
from byteback.server.states import Progress
from byteback.server.tree import Key, Names

Holders = Set[Run] | None


class Candidate:
    """A name in a directory, and what a match of it means.

    ``holders`` are the runs of the place that have it, None if that is unknown. One is
    made for each directory: that has to be fast.
    """

    __slots__ = ("_runs", "holders", "is_wanted", "name", "place", "progress")

    def __init__(
        self, place: Place, name: str, progress: Progress, holders: Holders
    ) -> None:
        self.place, self.name, self.holders = place, name, holders
        self.progress = progress
        # Whether a pattern ends here.
        self.is_wanted = progress.is_end or progress.is_end_for_directories
        self._runs: list[Run] | None = None

    @property
    def runs(self) -> list[Run]:
        """The name in all trees that have it."""
        if self._runs is None:
            self._runs = (
                self.place.runs
                if self.name == "."
                else locate(self.place, self.name, self.holders)
            )
        return self._runs

    def is_match(self, found: os.stat_result) -> bool:
        """Whether what is there may end a pattern."""
        return self.progress.is_match(is_directory=stat.S_ISDIR(found.st_mode))


class Search(NamedTuple):
    """What is looked for, and where."""

    directory: Path
    trees: Sequence[str]  # in directory, newest copy first
    chains: Chains  # of all trees there, see lineage.read_chains
    patterns: Sequence[Pattern]
    scope: str  # see search.find
    limits: Limits


def walk(search: Search) -> Iterator[Entry]:
    """All entries that the patterns match, sorted by path."""
    for candidate, path in matches(search):
        yield from _entries(candidate, path, search)


def differences(search: Search) -> Iterator[Difference]:
    """What changed from the second of two trees to the first.

    All that lies in a directory that matches counts, too. Sorted by path.
    """
    for candidate, path in matches(search, with_all_below=True):
        runs = {rank: run for run in candidate.runs for rank in run.ranks}
        both = [runs.get(rank) for rank in (0, 1)]
        if both[0] is not None and both[1] is not None and both[0].key == both[1].key:
            continue
        newer, older = (
            None
            if run is None or not candidate.is_match(run.status)
            else _entry(candidate, path, search, rank, run.status)
            for rank, run in enumerate(both)
        )
        found = compare(newer, older)
        if found is not None:
            search.limits.count_result()
            yield found


def matches(
    search: Search, *, with_all_below: bool = False
) -> Iterator[tuple[Candidate, str]]:
    """All names that a pattern may end at, with their paths, sorted by path."""
    start = states.merge_patterns(search.patterns, with_all_below=with_all_below)
    root = Place("", "", start, [], None)
    try:
        _open_root(root, search)
        itself = Candidate(root, ".", start, None)
        if itself.is_wanted:
            yield itself, "/"
        yield from _walk_below(root, search)
    except OSError as error:
        raise refusal(error) from None
    finally:
        root.close()


def refusal(error: OSError) -> Exception:
    """What an OSError means to the client: too many files are open, or a bug."""
    if error.errno not in (errno.EMFILE, errno.ENFILE):
        return error
    message = "too many snapshots and directories to search at once"
    return RefusedError(message, hint=NARROW)


def _open_root(root: Place, search: Search) -> None:
    rank_of = {name: rank for rank, name in enumerate(search.trees)}
    chains = [[rank_of[n] for n in chain if n in rank_of] for chain in search.chains]
    chained = {rank for chain in chains for rank in chain}
    chains += [[rank] for rank in rank_of.values() if rank not in chained]
    for rank, name in enumerate(search.trees):
        root.opened[rank] = tree.open_root(search.directory / name)
    for chain in chains:
        for position, rank in enumerate(chain):
            found = root.status(rank, ".")
            if found is not None:
                key = tree.key_of(found)
                append(root.runs, Run(chain, position, position, found, key))


def _walk_below(root: Place, search: Search) -> Iterator[tuple[Candidate, str]]:
    # Not recursive: how deep a tree is, its client decides.
    places = [root]
    names = [_candidates(root, search.limits)]
    try:
        while places:
            candidate = next(names[-1], None)
            if candidate is None:
                names.pop()
                places.pop().close()
                continue
            path = f"{candidate.place.path}/{candidate.name}"
            if candidate.is_wanted:
                yield candidate, path
            below = _descend(candidate, path)
            if below is not None:
                places.append(below)
                names.append(_candidates(below, search.limits))
    finally:
        for place in places:
            place.close()


def _candidates(place: Place, limits: Limits) -> Iterator[Candidate]:
    """The names in a directory that a pattern leads to, sorted."""
    if place.progress.needs_listing:
        return _listed_candidates(place, limits)
    names = {name for literals in place.progress.literals for name in literals}
    return _literal_candidates(place, sorted(names), limits)


def _literal_candidates(
    place: Place, names: Iterable[str], limits: Limits
) -> Iterator[Candidate]:
    for name in names:
        limits.step()
        yield Candidate(place, name, place.progress.after(name), None)


def _listed_candidates(place: Place, limits: Limits) -> Iterator[Candidate]:
    listings = place.listings()
    names: set[str] = set()
    for listed in listings.values():
        limits.step()
        names |= states.interesting(place.progress, listed)
    if not names:  # as in most directories
        return iter(())
    return _held_candidates(place, sorted(names), listings, limits)


def _held_candidates(
    place: Place, names: Iterable[str], listings: Mapping[Key, Names], limits: Limits
) -> Iterator[Candidate]:
    for name in names:
        limits.step()
        holders = {run for run in place.runs if name in listings[run.key]}
        candidate = Candidate(place, name, place.progress.after(name), holders)
        if candidate.is_wanted or any(listings[run.key][name] for run in holders):
            yield candidate


def _descend(candidate: Candidate, path: str) -> Place | None:
    """The directory of that name in all trees that have one, if it matters."""
    if not candidate.progress.leads_on or _is_too_long(path):
        return None
    runs = [run for run in candidate.runs if run.is_directory]
    if not runs:
        return None
    return Place(path, candidate.name, candidate.progress, runs, candidate.place)


def _is_too_long(path: str) -> bool:
    # No character takes more than four bytes.
    return (
        len(path) * 4 >= tree.PATH_MAX
        and len(path.encode("utf-8", "surrogateescape")) >= tree.PATH_MAX
    )


def _entries(candidate: Candidate, path: str, search: Search) -> Iterator[Entry]:
    """The copies of one path that the scope asks for."""
    match search.scope:
        case "newest":
            chosen = _newest(candidate)
        case "versions":
            chosen = _versions(candidate)
        case _:
            chosen = _copies(candidate)
    for rank, found, oldest in chosen:
        search.limits.count_result()
        entry = _entry(candidate, path, search, rank, found)
        if entry is None:
            continue
        if oldest is not None:
            entry = entry._replace(first_seen=search.trees[oldest])
        yield entry


def _entry(
    candidate: Candidate, path: str, search: Search, rank: int, found: os.stat_result
) -> Entry | None:
    """One copy; None if its directory is gone since it was looked at."""
    parent = candidate.place.descriptor(rank)
    if parent is None:
        return None
    return tree.read_entry(search.trees[rank], path, parent, candidate.name, found)


# The rank of a copy, its status, and of a version the rank of its oldest copy.
Chosen = tuple[int, os.stat_result, int | None]


def _newest(candidate: Candidate) -> Iterator[Chosen]:
    """The first copy that matches: nothing else is looked at."""
    place = candidate.place
    for run in sorted(place.runs, key=lambda run: run.ranks[0]):
        if candidate.holders is not None and run not in candidate.holders:
            continue
        # If its directory is the same in all of them, all or none have the name. But
        # from current it may have gone just now.
        for rank in run.ranks if candidate.holders else run.ranks[:1]:
            found = place.status(rank, candidate.name)
            if found is not None:
                break
        if found is not None and candidate.is_match(found):
            yield rank, found, None
            return


def _versions(candidate: Candidate) -> Iterator[Chosen]:
    """Each (mtime, size) once, newest first."""
    copies: dict[tuple[int, int], list[Run]] = {}
    for run in candidate.runs:
        if candidate.is_match(run.status):
            version = (run.status.st_mtime_ns, run.status.st_size)
            copies.setdefault(version, []).append(run)
    newest_first = [
        (*min((r.ranks[0], r.status) for r in runs), max(r.ranks[-1] for r in runs))
        for runs in copies.values()
    ]
    yield from sorted(newest_first, key=lambda chosen: chosen[0])


def _copies(candidate: Candidate) -> Iterator[Chosen]:
    """Every copy, the oldest first."""
    found = [
        (rank, run.status, None)
        for run in candidate.runs
        if candidate.is_match(run.status)
        for rank in run.ranks
    ]
    yield from sorted(found, key=lambda chosen: chosen[0], reverse=True)
