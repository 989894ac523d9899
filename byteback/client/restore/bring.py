"""Brings what comes out of one snapshot, and makes sure that it is there."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from byteback.client.restore import outlook, pull, sticky
from byteback.client.restore.changes import Change, RsyncOutput
from byteback.client.restore.outlook import Outlook
from byteback.client.restore.plan import Batch, directories_above
from byteback.client.restore.pull import Pull
from byteback.errors import BytebackError, quote
from byteback.model.size import format_count
from byteback.system import mounts
from byteback.system.rsync.command import Progress

logger = logging.getLogger(__name__)

OnProgress = Callable[[Progress], None] | None
# Names that are one file in the backup come as files of their own, rather than not.
_EACH_FOR_ITSELF = "--no-hard-links"
OTHERS_MAY_ENTER = stat.S_IXGRP | stat.S_IXOTH


@dataclass(frozen=True)
class Task:
    """One snapshot's part of a restore."""

    job: Pull
    batch: Batch
    obstructed: dict[str, str]  # names, and what is in the way to each
    # None: nothing is there that could be in the way, or be kept.
    outlook: Outlook | None = None

    @property
    def names(self) -> list[str]:
        """The names to ask rsync for."""
        return [name for name in self.batch.names if name not in self.obstructed]

    @property
    def asked(self) -> frozenset[str]:
        """The same as Change.name has it."""
        return frozenset(outlook.plain(name) for name in self.names)


@dataclass
class Result:
    """The result of a transfer."""

    missing: list[str] = field(default_factory=list)  # sentences, one for each name
    problems: list[str] = field(default_factory=list)  # rsync's, with single files
    kept: int = 0  # newer than in the backup


def prepare(job: Pull, batch: Batch, *, keeps_newer: bool) -> Task:
    """Look at what is there already. Raises as run_pull."""
    task = Task(job, batch, outlook.obstructed(job.directory, batch.names))
    if not job.is_dry_run and _is_bare(batch):
        return task
    job = replace(job, lists_first=True)
    seen = Outlook()
    if task.names:
        seen = outlook.look(job, task.names, keeps_newer=keeps_newer)
    return replace(task, job=job, outlook=seen)


def cannot_come(task: Task) -> list[str]:
    """A sentence for each name that is known beforehand to be missing at the end."""
    directory = task.batch.directory
    sentences = [
        outlook.describe_obstructed(directory, name, above)
        for name, above in task.obstructed.items()
    ]
    blocked = task.outlook.blocked if task.outlook is not None else ()
    return sentences + [outlook.describe_blocked(directory, name) for name in blocked]


def bring(task: Task, on_progress: OnProgress) -> Result:
    """Restore what can be restored. Raises as run_pull."""
    result = Result(cannot_come(task))
    if task.outlook is not None:
        result.kept = sum(not one.is_merged for one in task.outlook.kept)
        if not task.outlook.changes:
            result.problems += task.outlook.problems
            return result
    missing_parents = [] if task.job.with_parents else _missing_parents(task)
    # Directories on the way that are missing are made first, so that what was private
    # is so from the start, and again at the end, for their times have changed since.
    result.problems += _pull_directories(task.job, missing_parents)
    result.problems += _transfer(task, result, on_progress)
    _check(task, result)
    result.problems += _pull_directories(task.job, missing_parents)
    _complete_acls(task)
    return result


def foresee_parents(task: Task) -> list[Change]:
    """The directories on the way that would be made as well."""
    names = _missing_parents(task)
    heard = RsyncOutput(directory=task.job.directory)
    if names:
        pull.run_pull(task.job, names, recursive=False, heard=heard)
    return heard.changes


def _transfer(task: Task, result: Result, on_progress: OnProgress) -> Sequence[str]:
    heard = RsyncOutput()
    seen = task.outlook
    if seen is None or seen.is_whole:
        names, directories = task.names, []
    else:
        names, directories = seen.files, seen.directories(task.asked)
    problems: list[str] = []
    if names:
        outcome = pull.run_pull(task.job, names, on_progress=on_progress, heard=heard)
        problems += pull.problems_of(outcome)
        logger.info(
            "restored %s from %s below %s",
            format_count(outcome.files_sent, "file"),
            task.batch.snapshot,
            quote(str(task.batch.directory)),
        )
    result.kept += len(heard.kept)
    return [*problems, *_pull_directories(task.job, directories)]


def _pull_directories(job: Pull, names: Sequence[str]) -> Sequence[str]:
    """Make directories, or give them their metadata again; nothing of their content."""
    if not names:
        return ()
    ordered = [f"{name}/" if name == "." else name for name in names]
    return pull.problems_of(pull.run_pull(job, ordered, recursive=False))


def _check(task: Task, result: Result) -> None:
    """See whether all is there, and bring again what is not.

    A name that cannot be given to a file keeps rsync from giving it its other names;
    where only some names were asked for, links to the others were not made.
    """
    if task.outlook is None and not any(e.is_directory for e in task.batch.entries):
        gone = [name for name in task.asked if not _exists(task, name)]
        result.missing += _describe_missing(task, gone)
        return
    left = _look_again(task)
    absent = [one for one in left.changes if one.is_new]
    names = [*_link_again(task, left), *_bring_again(task, absent)]
    above = (task.outlook or Outlook()).above(names, task.asked)
    _pull_directories(task.job, above)
    gone = [c.name for c in absent if not outlook.is_there(task.batch.directory, c)]
    result.missing += _describe_missing(task, gone)
    if not left.changes and not left.problems:
        # rsync complains of some things that are well in the end: for an ACL that it
        # looked for where a directory was before, for example.
        for problem in result.problems:
            logger.info("rsync: %s", problem)
        result.problems.clear()


def _link_again(task: Task, left: Outlook) -> list[str]:
    """Make one file of what is one in the backup, but was not asked for as a whole."""
    if task.outlook is None or task.outlook.is_whole:
        return []
    kept = {change.name for change in task.outlook.kept}
    linked = [one for one in left.changes if one.leader and one.leader not in kept]
    both = [name for one in linked for name in (one.leader, one.name) if name]
    names = list(dict.fromkeys(both))
    if names:
        pull.run_pull(task.job, names)
    return names


def _bring_again(task: Task, absent: Sequence[Change]) -> list[str]:
    """Bring what has no name here, in the end each for itself."""
    brought: list[str] = []
    for rules in ((), (_EACH_FOR_ITSELF,)):
        names = [one.name for one in absent if not _exists(task, one.name)]
        if names:
            job = replace(task.job, rules=(*task.job.rules, *rules), lists_first=True)
            pull.run_pull(job, names)
        brought += names
    return brought


def _look_again(task: Task) -> Outlook:
    """All that is not as in the backup, without what was to be left alone."""
    left = outlook.look(task.job, task.names)
    if task.outlook is None:
        return left
    own = {one.name for one in task.outlook.kept}
    alone = {one.name for one in task.outlook.kept if not one.is_merged}
    return replace(
        left,
        blocked=(),
        changes=tuple(
            one
            for one in left.changes
            if one.name not in own and not outlook.is_below(one.name, alone)
        ),
    )


def _describe_missing(task: Task, names: Iterable[str]) -> list[str]:
    """A sentence for each name, but for those in a directory that is missing itself."""
    directory, told = task.batch.directory, set[str]()
    for name in sorted(names, key=lambda one: one.split("/")):
        if not outlook.is_below(name, told):
            told.add(name)
    return [f"{quote(str(directory / name))} is not there" for name in sorted(told)]


def _exists(task: Task, name: str) -> bool:
    return os.path.lexists(task.batch.directory / name)


def _complete_acls(task: Task) -> None:
    """Set again what rsync sets only in part; what is not in the backup is ignored."""
    foreign = frozenset(mount.point for mount in mounts.read() if not mount.is_disc)
    names = sticky.find(task.batch.directory, task.names, foreign)
    if task.outlook is not None:
        kept = {one.name for one in task.outlook.kept}
        names = [name for name in names if outlook.plain(name) not in kept]
    if names:
        pull.run_pull(task.job, names, recursive=False)


def _missing_parents(task: Task) -> list[str]:
    return [name for name in directories_above(task.names) if not _exists(task, name)]


def _is_bare(batch: Batch) -> bool:
    """True if nothing has any of the names, but for directories with nothing in them.

    A directory in one of those could be where a file belongs.
    """
    for entry in batch.entries:
        path = batch.directory / entry.path[1:]
        if not os.path.lexists(path):
            continue
        try:
            if path.is_symlink() or not entry.is_directory or any(os.scandir(path)):
                return False
        except OSError:
            return False
    return True


def make_directory(directory: Path, *, is_live: bool, is_private: bool = False) -> None:
    """Make the directory to restore into; an ``is_private`` one is for its owner alone.

    One of ours, named after a snapshot, must not be a link: in a directory that
    others can write to, they could have put it there to send us elsewhere.
    """
    try:
        mode = 0o700 if is_private else 0o777
        directory.mkdir(mode, parents=True, exist_ok=True)
        is_link = directory.is_symlink()
    except OSError as error:
        raise BytebackError(
            f"cannot make the directory {quote(str(directory))}: {error.strerror}",
            hint="choose another one with --to",
        ) from None
    if is_link and not is_live:
        raise BytebackError(
            f"{quote(str(directory))} is a symbolic link, and nothing is restored "
            "through it",
            hint="remove it, or choose another directory with --to",
        )
    if is_private and not is_live and others_may_enter(directory):
        raise BytebackError(
            f"other users can enter {quote(str(directory))}, which was there already",
            hint="move it out of the way, or restore elsewhere",
        )


def others_may_enter(directory: Path) -> bool:
    """True if a user who is not root can reach the files in ``directory``."""
    try:
        found = directory.stat()
    except OSError:
        return False
    return found.st_uid != 0 or bool(found.st_mode & OTHERS_MAY_ENTER)
