"""A look at what a restore would change, and what it has to leave alone (D45).

rsync compares, in a dry run. What is newer and what cannot be replaced is seen here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from byteback.client.restore import pull, query
from byteback.client.restore.changes import Change, RsyncOutput
from byteback.client.restore.plan import directories_above
from byteback.client.restore.pull import Pull
from byteback.client.restore.query import Query
from byteback.errors import quote
from byteback.model.glob.pattern import escape_name
from byteback.system.rsync.command import Progress

# So many paths at once are asked for, of which the time is needed to the nanosecond.
PATHS_AT_ONCE = 500
BLOCK = 512  # bytes; the unit of st_blocks
_NANOSECOND = 10**9
# In a dry run alone: what is in the way is to be told of like everything else.
_NOTHING_IN_THE_WAY = "--force"

State = Mapping[str, os.stat_result]


@dataclass(frozen=True)
class Outlook:
    """The effects of one transfer; all names are below its destination."""

    changes: tuple[Change, ...] = ()  # that it makes
    kept: tuple[Change, ...] = ()  # that it does not: what is there is newer
    # Names it cannot give to a file: of directories that hold something.
    blocked: tuple[str, ...] = ()
    newer: frozenset[str] = frozenset()  # what is replaced although it is newer
    growth: int = 0  # bytes by which the disc would fill
    problems: tuple[str, ...] = ()  # rsync's, with single files

    @property
    def is_whole(self) -> bool:
        """True if all that was asked for can be brought, as it stands."""
        return not self.kept and not self.blocked

    @property
    def replaced(self) -> list[str]:
        """The names whose contents, or whatever else has them, would be replaced."""
        return [one.name for one in self.changes if one.action == "replace"]

    @property
    def files(self) -> list[str]:
        """Names to ask for with their contents: no directory that is there now."""
        made = {one.name for one in self.changes if one.is_directory and one.is_new}
        return [
            one.name
            for one in self.changes
            if not one.is_merged and not is_below(one.name, made)
        ]

    def directories(self, asked: Collection[str]) -> list[str]:
        """Names to ask for without their contents: directories that are there now.

        Those above each of ``files`` get their times again.
        """
        adjusted = [one.name for one in self.changes if one.is_merged]
        return list(dict.fromkeys([*adjusted, *self.above(self.files, asked)]))

    def above(self, names: Iterable[str], asked: Collection[str]) -> list[str]:
        """The directories above ``names`` that are not kept as they are.

        And that are, or are below, names that were ``asked`` for.
        """
        left = {one.name for one in self.kept}
        found = {
            directory: None
            for name in names
            for directory in _above(name)
            if directory not in left
            and (directory in asked or is_below(directory, asked))
        }
        return list(found)


def look(
    job: Pull,
    names: Sequence[str],
    *,
    keeps_newer: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Outlook:
    """Ask rsync, which changes nothing, about ``names``. Raises as run_pull."""
    heard = RsyncOutput(directory=job.directory)
    dry = replace(
        job,
        is_dry_run=True,
        keeps_newer=False,
        lists_first=True,
        rules=(*job.rules, _NOTHING_IN_THE_WAY),
    )
    outcome = pull.run_pull(dry, names, heard=heard, on_progress=on_progress)
    above = directories_above(names) if job.with_parents else ()
    changes = list(_asked(heard.changes, {plain(name) for name in names}, above))
    state = _state(job.directory, changes)
    newer = _newer(job, changes, state, to_the_nanosecond=keeps_newer)
    found = _sort(changes, state, job.directory, newer if keeps_newer else frozenset())
    problems = pull.problems_of(outcome)
    replaced = {change.name for change in found.changes if change.action == "replace"}
    return replace(
        found,
        newer=newer & replaced,
        growth=_growth(found.changes, state),
        problems=problems,
    )


def obstructed(directory: Path, names: Iterable[str]) -> dict[str, str]:
    """Names that lead through something else than a directory, and through what.

    Nothing is written through a link: in a directory that others can write to, they
    could have put it there to send us elsewhere.
    """
    found: dict[str, str] = {}
    is_passable: dict[str, bool] = {".": True}
    for name in names:
        for above in reversed(list(_above(plain(name)))):
            if above not in is_passable:
                is_passable[above] = _is_passable(directory / above)
            if not is_passable[above]:
                found[name] = above
                break
    return found


def _is_passable(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:  # it will be made, or rsync says why not
        return True


def plain(name: str) -> str:
    """A name as Change.name has it: ``.`` for the destination itself."""
    return name.rstrip("/")


def is_below(name: str, directories: Collection[str]) -> bool:
    """True if one of ``directories`` leads to ``name``."""
    return any(directory in directories for directory in _above(name))


def is_there(directory: Path, change: Change) -> bool:
    """True if something of the right type has the name."""
    try:
        mode = (directory / change.name).lstat().st_mode
    except OSError:
        return False
    return _file_type(mode) == change.file_type


def describe_obstructed(directory: Path, name: str, above: str) -> str:
    """Why nothing could be restored there: what leads to it is no directory."""
    path, link = quote(str(directory / name)), quote(str(directory / above))
    return f"{path}: {link} is a link, or something else that is no directory"


def describe_blocked(directory: Path, name: str) -> str:
    """Why a file could not be restored there."""
    return (
        f"{quote(str(directory / name))}: a directory that is not empty is in its place"
    )


def _above(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name
    yield "."


def _asked(
    changes: Iterable[Change], asked: Collection[str], above: Collection[str]
) -> Iterator[Change]:
    """Each change once, without what was not asked for.

    The server can put lines of its own into what rsync prints, and what is told of
    here is later asked for by name. ``above`` are directories without their content.
    """
    seen = set()
    for change in changes:
        if change.action == "delete" or change.name in seen:
            continue
        if change.name in above or _is_asked(change.name, asked):
            seen.add(change.name)
            is_safe = change.leader is None or _is_asked(change.leader, asked)
            yield change if is_safe else replace(change, leader=None)


def _is_asked(name: str, asked: Collection[str]) -> bool:
    is_plain = ".." not in name.split("/")
    return is_plain and (name in asked or is_below(name, asked))


def _state(directory: Path, changes: Iterable[Change]) -> dict[str, os.stat_result]:
    """The files that are there now, by name."""
    found = {}
    for change in changes:
        try:
            found[change.name] = (directory / change.name).lstat()
        except OSError:
            continue
    return found


def _newer(
    job: Pull, changes: Sequence[Change], state: State, *, to_the_nanosecond: bool
) -> frozenset[str]:
    """The names of what is there and newer than its backup.

    rsync tells times to the second; where that does not decide, the server is asked.
    """
    newer, undecided = set(), []
    for change in changes:
        status = state.get(change.name)
        if status is None:
            continue
        second = status.st_mtime_ns // _NANOSECOND
        if change.mtime_s is None or second == change.mtime_s:
            undecided.append(change.name)
        elif second > change.mtime_s:
            newer.add(change.name)
    if to_the_nanosecond:
        times = _exact_times(job, undecided)
        # What the server does not know any more is kept.
        newer |= {
            name
            for name in undecided
            if name not in times or state[name].st_mtime_ns > times[name]
        }
    return frozenset(newer)


def _exact_times(job: Pull, names: Sequence[str]) -> dict[str, int]:
    times = {}
    for start in range(0, len(names), PATHS_AT_ONCE):
        some = names[start : start + PATHS_AT_ONCE]
        patterns = [escape_name("/" if name == "." else f"/{name}") for name in some]
        found = query.ask(job.connection, Query((), job.snapshot), patterns)
        for entry in found.entries:
            times[entry.path[1:] or "."] = entry.mtime_ns
    return times


def _sort(
    changes: Iterable[Change], state: State, directory: Path, kept: Collection[str]
) -> Outlook:
    """Tell what will be done from what is left alone, the upper names first."""
    doing: list[Change] = []
    keeping: list[Change] = []
    blocked: list[str] = []
    made: set[str] = set()  # directories below which nothing is yet
    left: set[str] = set()  # names below which nothing will be
    for change in sorted(changes, key=lambda one: one.name.split("/")):
        status = state.get(change.name)
        if is_below(change.name, left):
            continue
        if status is None or is_below(change.name, made):
            doing.append(change)
        elif change.name in kept:
            keeping.append(change)
            if not change.is_merged:
                left.add(change.name)
        elif _is_blocked(change, status, directory):
            blocked.append(change.name)
            left.add(change.name)
        else:
            doing.append(change)
        if change.is_directory and change.is_new:
            made.add(change.name)
    # Nothing but links to what is left alone: those are not made.
    doing = [c for c in doing if c.action != "adjust" or c.leader not in left]
    return Outlook(tuple(doing), tuple(keeping), tuple(blocked))


def _is_blocked(change: Change, status: os.stat_result, directory: Path) -> bool:
    if change.is_directory or not stat.S_ISDIR(status.st_mode):
        return False
    try:
        with os.scandir(directory / change.name) as entries:
            return next(entries, None) is not None
    except OSError:
        return True


def _growth(changes: Iterable[Change], state: State) -> int:
    growth = 0
    for change in changes:
        if change.action in ("create", "replace"):
            growth += change.size
        if change.action == "replace" and change.name in state:
            growth -= state[change.name].st_blocks * BLOCK
    return growth


def _file_type(mode: int) -> str:
    for is_type, letter in (
        (stat.S_ISREG, "f"),
        (stat.S_ISDIR, "d"),
        (stat.S_ISLNK, "L"),
        (stat.S_ISCHR, "D"),
        (stat.S_ISBLK, "D"),
    ):
        if is_type(mode):
            return letter
    return "S"
