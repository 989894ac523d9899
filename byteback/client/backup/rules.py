"""The selection of a backup: one immutable value, made for each backup (D35).

The first rule that matches a name decides. In their order:

1. what is never sent, and the bounds that the sources are;
2. the administrator's: rsync_filter, excludes, and the filters among rsync_flags;
3. what is left out by itself, or what --exclude says instead.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from byteback.client.backup import (
    duplicates,
    excludes,
    mount_points,
    sources,
)
from byteback.client.backup.duplicates import Duplicate, View
from byteback.client.backup.mount_points import Found, Wanted
from byteback.client.backup.rule_files import RuleFiles
from byteback.client.record import keeper as record
from byteback.client.record import skeleton
from byteback.client.settings import RUN_DIRECTORY, Files, read_rsync_flags
from byteback.errors import ToolError, quote
from byteback.model import rsync_filter, rsync_flags
from byteback.system import mounts
from byteback.system.mounts import Mount, is_below

logger = logging.getLogger(__name__)

ONE_FILE_SYSTEM = ("", "-x", "-xx")


@dataclass(frozen=True)
class Request:
    """The request of a command line: the sources as given, and what to leave out."""

    sources: Sequence[str] = ("/",)
    excludes: Sequence[str] | None = None  # None: what byteback leaves out by itself


@dataclass(frozen=True)
class LeftOut:
    """Something that an administrator may not expect to be left out."""

    key: str  # by which it is known again
    text: str
    path: str = ""  # what is left out, if it is sent from another place
    original: str = ""  # that place


@dataclass(frozen=True)
class Selection:
    """The selection as rsync is told it. Equal selections send the same names."""

    sources: tuple[str, ...] = ()  # absolute, without links above them
    bounds: tuple[str, ...] = ()  # filter rules: 1. in the order above
    own: tuple[str, ...] = ()  # words: the administrator's files
    flags: tuple[str, ...] = ()  # words: rsync_flags, filters among them
    automatic: tuple[str, ...] = ()  # words: 3. in the order above
    # Paths of the files that the words name, each with a digest of its contents.
    files: tuple[tuple[str, str], ...] = ()
    hidden: tuple[str, ...] = ()  # mount points that rsync must not see
    foreign: frozenset[str] = frozenset()  # mount points our own walks do not enter
    left_out: tuple[LeftOut, ...] = field(default=(), compare=False)
    # Mount points of discs whose contents are sent.
    discs: tuple[str, ...] = field(default=(), compare=False)

    @property
    def words(self) -> list[str]:
        """rsync's words for all of it, rsync_flags included, in their order."""
        return [*self._first, *self.own, *self.flags, *self.automatic]

    @property
    def filters(self) -> list[str]:
        """Those of the words that decide which names are sent."""
        chosen = [
            word for flag in rsync_flags.filters(self.flags) for word in flag.words
        ]
        return [*self._first, *self.own, *chosen, *self.automatic]

    @property
    def plain_flags(self) -> list[str]:
        """rsync_flags without those that decide which names are sent."""
        return [
            word
            for flag in rsync_flags.parse_flags(self.flags)
            if flag.name not in rsync_flags.FILTERS
            for word in flag.words
        ]

    @property
    def _first(self) -> list[str]:
        return [f"--filter={rule}" for rule in self.bounds]


def check(files: Files, request: Request) -> list[str]:
    """Find what select would not take, without a look at what is mounted.

    Returns the sources as select has them. Raises UsageError as select.
    """
    _own_rules(files, request, read_rsync_flags(files))
    return sources.resolve(request.sources)


def select(files: Files, request: Request, *, may_be_gone: bool = False) -> Selection:
    """Turn all that says what to send into a Selection, by this machine as it is now.

    With ``may_be_gone`` a source need not exist: a snapshot may still have it.
    Raises UsageError for a source that does not exist, and for a file of rules or
    options that byteback cannot follow; BytebackError as mount_points.examine.
    """
    paths = sources.resolve(request.sources, may_be_gone=may_be_gone)
    flags, level = rsync_flags.take_one_file_system(read_rsync_flags(files))
    own, read = _own_rules(files, request, flags)
    caches = {} if request.excludes is not None else excludes.find()
    wanted = Wanted(
        paths,
        is_automatic=request.excludes is None,
        left_out=[path for path, is_directory in caches.items() if is_directory],
        may_include=_may_include(files, flags),
    )
    table = mounts.read()
    found = mount_points.examine(table, wanted)
    machine = _Machine(table, paths, found)
    crossed = machine.boundaries() if level else []
    if paths == ["/"]:
        flags.append(ONE_FILE_SYSTEM[level])
    else:
        boundaries = mount_points.boundary_rules(crossed, paths, level)
        found = replace(found, first=(*found.first, *boundaries))
    selection = Selection(
        tuple(paths),
        # The record is of no use on any other machine, nor here after a restore.
        (f"- {record.PLACE}*", *found.first, *rsync_filter.bounds(paths)),
        tuple(own),
        tuple(filter(None, flags)),
        _automatic(request, found, excludes.rules(caches, paths)),
        tuple(sorted(read.digests.items())),
        found.hidden,
        found.foreign,
        tuple(_unusable(path, why) for path, why in found.unusable.items()),
        machine.discs(crossed),
    )
    if request.excludes is not None:
        return selection
    return _without_duplicates(selection, machine.duplicates(crossed))


class _Machine:
    """This machine's mounts and subvolumes, as what is sent goes by them."""

    def __init__(
        self, table: Sequence[Mount], paths: Sequence[str], found: Found
    ) -> None:
        self._table = table
        self._sources = paths
        self._found = found
        self._subvolumes = duplicates.read_subvolumes(table)

    def boundaries(self) -> list[str]:
        """The directories where rsync's -x would turn back."""
        points = [m.point for m in self._table if self._is_source_above(m.point)]
        inner = duplicates.find_nested(self._view([]), self._subvolumes)
        return mount_points.boundaries([*points, *inner], self._sources)

    def duplicates(self, crossed: Sequence[str]) -> list[Duplicate]:
        """The paths that are sent from another place too; not beyond ``crossed``."""
        return duplicates.find(self._view(crossed), self._subvolumes)

    def discs(self, crossed: Sequence[str]) -> tuple[str, ...]:
        """Where discs are mounted that are sent."""
        view = self._view(crossed)
        points = (m.point for m in self._table if m.is_disc and m.point != "/")
        return tuple(point for point in points if view.is_sent(point))

    def _view(self, crossed: Sequence[str]) -> View:
        covers = self._found.left_out.union(crossed)

        def is_sent(path: str) -> bool:
            return (
                any(is_below(path, source) for source in self._sources)
                and path not in covers
                and not mount_points.is_covered(path, covers, self._sources)
            )

        def is_asked_for(path: str) -> bool:
            return any(is_below(source, path) for source in self._sources)

        return View(self._table, is_sent, is_asked_for)

    def _is_source_above(self, point: str) -> bool:
        above = [source for source in self._sources if is_below(point, source)]
        return bool(above) and point not in above


def _unusable(path: str, why: str) -> LeftOut:
    return LeftOut(path, f"{quote(path)} ({why})")


def _without_duplicates(selection: Selection, found: Sequence[Duplicate]) -> Selection:
    """The selection without what is sent from another place, too.

    Only where the administrator's own rules let the original through.
    """
    if selection.own or rsync_flags.filters(selection.flags):
        originals = {one.original for one in found} - {"/"}
        kept = _let_through(selection, originals) | {"/"}
        found = [one for one in found if one.original in kept]
    rules = [
        rule for one in found for rule in rsync_filter.leave_in(one.path, one.kept)
    ]
    told = dict.fromkeys(_told_of(one) for one in found)
    elsewhere = {one.path for one in found}
    return replace(
        selection,
        automatic=(*(f"--filter={rule}" for rule in rules), *selection.automatic),
        left_out=(*selection.left_out, *told),
        discs=tuple(point for point in selection.discs if point not in elsewhere),
    )


def _let_through(selection: Selection, directories: Collection[str]) -> frozenset[str]:
    """Those of some directories that are sent; rsync itself judges, by their names."""
    asked = [(path.strip("/"), True) for path in sorted(directories)]
    try:
        found = skeleton.judge(selection.filters, asked, RUN_DIRECTORY)
    except (OSError, ToolError) as error:
        # Then what is there twice is sent twice.
        logger.debug("rsync could not be asked about its rules: %s", error)
        return frozenset()
    return frozenset(f"/{path}" for path in found)


def _told_of(one: Duplicate) -> LeftOut:
    """The notices: one for all snapshots of an original, for others will follow."""
    if one.is_snapshot:
        text = f"read-only snapshots of {quote(one.original)}"
        return LeftOut(text, text)
    text = f"{quote(one.path)} (the same as {quote(one.original)})"
    return LeftOut(one.path, text, one.path, one.original)


def _own_rules(
    files: Files, request: Request, flags: Sequence[str]
) -> tuple[list[str], RuleFiles]:
    """The words for the administrator's files, and what is in those."""
    words, read = [], RuleFiles()
    filter_file = files.existing("rsync_filter")
    if filter_file is not None:
        read.add_filter_file(filter_file)
        words.append(f"--filter=merge {filter_file}")
    exclude_file = files.existing("excludes")
    if exclude_file is not None:
        read.add_pattern_file(exclude_file)
        words.append(f"--exclude-from={exclude_file}")
    read.add_flags(rsync_flags.filters(flags))
    read.add_patterns(request.excludes or ())
    return words, read


def _may_include(files: Files, flags: Sequence[str]) -> bool:
    """True if rules of the administrator's may bring in what is left out by itself."""
    found = {flag.name for flag in rsync_flags.filters(flags)}
    return files.existing("rsync_filter") is not None or bool(
        found & {"filter", "include", "include-from", "F"}
    )


def _automatic(
    request: Request, found: Found, caches: Collection[str]
) -> tuple[str, ...]:
    if request.excludes is not None:
        return tuple(f"--exclude={pattern}" for pattern in request.excludes)
    return tuple(f"--filter={rule}" for rule in (*found.automatic, *caches))
