"""Walks all trees of a client together, guided by patterns."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from byteback.errors import RefusedError
from byteback.model.difference import Difference, compare
from byteback.model.glob.pattern import NARROW, Pattern
from byteback.model.listing import Entry
from byteback.server.search import matching
from byteback.server.search.candidates import Candidate, choose
from byteback.server.search.directories import Directory, Run, append
from byteback.server.search.limits import Limits
from byteback.server.snapshots.lineage import Chains
from byteback.server.store import tree
from byteback.server.store.tree import Key, Names


class Search(NamedTuple):
    """The patterns of a search, and the trees that it reads."""

    directory: Path
    trees: Sequence[str]  # in directory, newest copy first
    chains: Chains  # of all trees there, see lineage.chains_of
    patterns: Sequence[Pattern]
    scope: str  # see search.find
    limits: Limits
    # The only directories in which anything can be, by their paths; None for all.
    led: Collection[str] | None = None


def walk(search: Search) -> Iterator[Entry]:
    """All entries that the patterns match, sorted by path."""
    for candidate, path in matches(search):
        yield from _entries(candidate, path, search)


def differences(search: Search) -> Iterator[Difference]:
    """List the changes from the second of two trees to the first.

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
    start = matching.merge_patterns(search.patterns, with_all_below=with_all_below)
    root = Directory("", "", start, [], None)
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


def directories(search: Search) -> Iterator[tuple[str, Collection[str]]]:
    """Each directory, and all names in it in any of the trees, whatever the patterns.

    Paths are "/" or "/etc", and come before all that is below them. Raises RefusedError
    when the time of its limits is up, or too many files are open.
    """
    everything = matching.merge_patterns([Pattern((), False)], with_all_below=True)
    places = [Directory("", "", everything, [], None)]
    below: list[list[Candidate]] = []
    try:
        _open_root(places[0], search)
        while places:
            if len(below) < len(places):
                names, inner = _list_all(places[-1], search.limits)
                yield places[-1].path or "/", names
                below.append(inner)
            if not below[-1]:
                below.pop()
                places.pop().close()
                continue
            candidate = below[-1].pop()
            found = _descend(candidate, f"{candidate.place.path}/{candidate.name}")
            if found is not None:
                places.append(found)
    except OSError as error:
        raise refusal(error) from None
    finally:
        for place in places:
            place.close()


def _list_all(
    place: Directory, limits: Limits
) -> tuple[Collection[str], list[Candidate]]:
    """All names in a directory, and those that are directories anywhere.

    Only one listing is kept at a time: there may be a million names in each of sixty.
    """
    runs: dict[Key, list[Run]] = {}
    for run in place.runs:
        runs.setdefault(run.key, []).append(run)
    names: set[str] = set()
    holders: dict[str, set[Run]] = {}
    for alike in runs.values():
        limits.step()
        listed = place.listing(alike[0])
        names |= listed.keys()
        for name, is_directory in listed.items():
            if is_directory:
                holders.setdefault(name, set()).update(alike)
    inner = holders.items()
    return names, [Candidate(place, name, place.progress, of) for name, of in inner]


def refusal(error: OSError) -> Exception:
    """The error for the client: too many files are open, or a bug."""
    if error.errno not in (errno.EMFILE, errno.ENFILE):
        return error
    message = "too many snapshots and directories to search at once"
    return RefusedError(message, hint=NARROW)


def _open_root(root: Directory, search: Search) -> None:
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


def _walk_below(root: Directory, search: Search) -> Iterator[tuple[Candidate, str]]:
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
            below = _descend(candidate, path, search.led)
            if below is not None:
                places.append(below)
                names.append(_candidates(below, search.limits))
    finally:
        for place in places:
            place.close()


def _candidates(place: Directory, limits: Limits) -> Iterator[Candidate]:
    """The names in a directory that a pattern leads to, sorted."""
    if place.progress.needs_listing:
        return _listed_candidates(place, limits)
    names = {name for literals in place.progress.literals for name in literals}
    return _literal_candidates(place, sorted(names), limits)


def _literal_candidates(
    place: Directory, names: Iterable[str], limits: Limits
) -> Iterator[Candidate]:
    for name in names:
        limits.step()
        yield Candidate(place, name, place.progress.after(name), None)


def _listed_candidates(place: Directory, limits: Limits) -> Iterator[Candidate]:
    listings = place.listings()
    names: set[str] = set()
    for listed in listings.values():
        limits.step()
        names |= matching.interesting(place.progress, listed)
    if not names:  # as in most directories
        return iter(())
    return _held_candidates(place, sorted(names), listings, limits)


def _held_candidates(
    place: Directory,
    names: Iterable[str],
    listings: Mapping[Key, Names],
    limits: Limits,
) -> Iterator[Candidate]:
    for name in names:
        limits.step()
        holders = {run for run in place.runs if name in listings[run.key]}
        candidate = Candidate(place, name, place.progress.after(name), holders)
        if candidate.is_wanted or any(listings[run.key][name] for run in holders):
            yield candidate


def _descend(
    candidate: Candidate, path: str, led: Collection[str] | None = None
) -> Directory | None:
    """The directory of that name in all trees that have one, if it matters."""
    if not candidate.progress.leads_on or _is_too_long(path):
        return None
    if led is not None and path not in led:
        return None
    runs = [run for run in candidate.runs if run.is_directory]
    if not runs:
        return None
    return Directory(path, candidate.name, candidate.progress, runs, candidate.place)


def _is_too_long(path: str) -> bool:
    # No character takes more than four bytes.
    return (
        len(path) * 4 >= tree.PATH_MAX
        and len(path.encode("utf-8", "surrogateescape")) >= tree.PATH_MAX
    )


def _entries(candidate: Candidate, path: str, search: Search) -> Iterator[Entry]:
    """The copies of one path that the scope asks for."""
    for rank, found, oldest in choose(candidate, search.scope):
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
