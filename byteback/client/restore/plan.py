"""Plans the targets of restored files, and which of them one rsync can fetch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from byteback.errors import UsageError
from byteback.model.listing import Entry, rank_trees


@dataclass(frozen=True)
class Layout:
    """The target of a restore."""

    directory: Path
    by_snapshot: bool  # below a directory named after each snapshot
    # Files that others work with are there already: they are replaced only after a
    # question, and the directories above what is restored keep their own owners, modes
    # and times.
    is_live: bool
    keeps_newer: bool = False  # what is newer than its backup stays, whatever it is
    is_private: bool = False  # directories that are made are for root alone


@dataclass(frozen=True)
class Batch:
    """The files of one snapshot that go into one directory."""

    snapshot: str
    directory: Path
    entries: tuple[Entry, ...]  # nothing in it lies below another

    @property
    def names(self) -> list[str]:
        """The paths as rsync is asked for them: relative, the root as ``./``."""
        return [entry.path[1:] or "./" for entry in self.entries]


def choose_layout(
    working_directory: Path,
    *,
    to: Path | None = None,
    in_place: bool = False,
    keep_newer: bool = False,
    overwrite: bool = False,
    every_version: bool = False,
) -> Layout:
    """The layout for what the command line says; raises UsageError if it cannot be.

    By default each snapshot gets a directory of its own where the user is. With
    ``to`` the paths begin in that directory, and only several versions of one file
    need the snapshots' names to keep them apart. ``overwrite``, once needed for what
    is newer, changes nothing.
    """
    if in_place and to is not None:
        raise UsageError("--to and --in-place contradict each other")
    if in_place and every_version:
        raise UsageError(
            "--in-place cannot put every version of a file in one place",
            hint="leave --all out, or choose one version with --snapshot",
        )
    if overwrite and keep_newer:
        raise UsageError("--overwrite and --keep-newer contradict each other")
    if keep_newer and not in_place and to is None:
        raise UsageError("--keep-newer belongs to --to or --in-place")
    if in_place:
        return Layout(Path("/"), False, True, keep_newer)
    if to is not None:
        return Layout(working_directory / to, every_version, True, keep_newer)
    return Layout(working_directory, True, False)


def plan_batches(
    entries: Iterable[Entry], layout: Layout, *, current_is_whole: bool
) -> list[Batch]:
    """Plan the files to fetch, snapshot by snapshot, the newest last.

    Where all goes to one directory, the newest snapshot so has the last word on the
    directories' times. What lies in a directory that is restored anyway is left out.
    """
    grouped: dict[str, list[Entry]] = {}
    for entry in entries:
        grouped.setdefault(entry.snapshot, []).append(entry)
    ranked = rank_trees(grouped, current_is_whole=current_is_whole)
    return [
        Batch(
            snapshot,
            layout.directory / snapshot if layout.by_snapshot else layout.directory,
            tuple(_uncovered(grouped[snapshot])),
        )
        for snapshot in reversed(ranked)
    ]


def directories_above(names: Sequence[str]) -> list[str]:
    """The directories that lead to ``names``, the upper ones first."""
    found: dict[str, None] = {}
    for name in names:
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            found["/".join(parts[:depth])] = None
    found.pop(".", None)
    return sorted(found)


def _uncovered(entries: Sequence[Entry]) -> list[Entry]:
    directories = {entry.path for entry in entries if entry.is_directory}
    return [entry for entry in entries if not _is_below(entry.path, directories)]


def _is_below(path: str, directories: set[str]) -> bool:
    if path == "/":
        return False
    above = path.rpartition("/")[0]
    while above:
        if above in directories:
            return True
        above = above.rpartition("/")[0]
    return "/" in directories
