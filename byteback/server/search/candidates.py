"""A name in one directory in all trees, and which of its copies are asked for."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Set

from byteback.server.search.directories import Directory, Run, locate
from byteback.server.search.matching import Progress

Holders = Set[Run] | None

# The rank of a copy, its status, and of a version the rank of its oldest copy.
Chosen = tuple[int, os.stat_result, int | None]


class Candidate:
    """A name in a directory, and what a match of it means.

    ``holders`` are the runs of the place that have it, None if that is unknown. One is
    made for each directory: that has to be fast.
    """

    __slots__ = ("_runs", "holders", "is_wanted", "name", "place", "progress")

    def __init__(
        self, place: Directory, name: str, progress: Progress, holders: Holders
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
        """True if a pattern may match here."""
        return self.progress.is_match(is_directory=stat.S_ISDIR(found.st_mode))


def choose(candidate: Candidate, scope: str) -> Iterator[Chosen]:
    """The copies of a name that the scope asks for; see search.find."""
    match scope:
        case "newest":
            return _newest(candidate)
        case "versions":
            return _versions(candidate)
        case _:
            return _copies(candidate)


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
