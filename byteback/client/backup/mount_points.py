"""Decides which mounts of this machine a backup sends (D35).

Types and places come from the mount table. Of file systems that another machine or
program answers for, only those are looked at that rsync would meet, with a time limit.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from byteback.errors import BytebackError, quote
from byteback.model.rsync_filter import contents_rule, file_rule, leave_in
from byteback.system import mounts, time_limit
from byteback.system.mounts import AUTOMOUNT, Mount, is_below

LOOK_LIMIT_S = 10.0
WANTED_LIMIT_S = 30.0  # where the contents are to be sent
HIDE_LIMIT_S = 10.0

Trouble = time_limit.Failed | time_limit.Silent


@dataclass(frozen=True)
class Wanted:
    """The request for a backup, as far as mount points go."""

    sources: Sequence[str]
    is_automatic: bool = True  # whether file systems that are on no disc are left out
    left_out: Collection[str] = ()  # other directories whose contents are, then
    may_include: bool = False  # whether rules of the administrator's may undo that


@dataclass(frozen=True)
class Found:
    """The consequences of the mounts. Rules are rsync's filter rules."""

    first: tuple[str, ...] = ()  # rules that come before all others
    automatic: tuple[str, ...] = ()  # and those that come last
    hidden: tuple[str, ...] = ()  # mount points that rsync must not see
    unusable: dict[str, str] = field(default_factory=dict)  # mount points, and why
    foreign: frozenset[str] = frozenset()  # those that our own walks do not enter
    left_out: frozenset[str] = frozenset()  # directories whose contents are


def examine(table: Iterable[Mount], wanted: Wanted) -> Found:
    """Decide what becomes of each visible mount below the root.

    Raises BytebackError where a file system is silent and cannot be kept from rsync.
    """
    return _Examination([m for m in table if m.point != "/"], wanted).decide()


class _Examination:
    def __init__(self, table: Sequence[Mount], wanted: Wanted) -> None:
        self.table = table
        self.wanted = wanted
        # Directories whose contents are left out: always, and unless told otherwise.
        self.kernel = {m.point for m in table if m.is_kernel} - set(wanted.sources)
        self.automatic: set[str] = set()
        if wanted.is_automatic:
            self.automatic = {m.point for m in table if not m.is_disc}
            self.automatic |= set(wanted.left_out)
            self.automatic -= set(wanted.sources)

    def decide(self) -> Found:
        odd = [m for m in self.table if not (m.is_local or self._carries(m.point))]
        users = [m.point for m in odd if m.is_of_user]
        idle = [m.point for m in odd if self._is_idle_automount(m)]
        met = [m.point for m in odd if self._is_met(m.point) and m.point not in idle]
        troubles = _look([point for point in met if point not in users], self.automatic)
        hidden = _can_hide([*users, *idle, *troubles])
        seen = [point for point in met if point in users and point not in hidden]
        troubles |= _look(seen, self.automatic)
        for point, trouble in troubles.items():
            if isinstance(trouble, time_limit.Silent) and point not in hidden:
                raise _cannot_hide(point)
        unusable = {
            mount.point: _reason(troubles.get(mount.point))
            for mount in odd
            if mount.point in troubles or (mount.is_of_user and mount.point in met)
        }
        # rsync looks at a mount point that it sees, whatever the rules are; one that
        # gives it an error must be left out itself.
        bad = troubles.keys() - set(hidden)
        never = [f"- {file_rule(point)}" for point in sorted(bad)]
        never += [
            f"- {contents_rule(point)}" for point in sorted({*users, *unusable} - bad)
        ]
        automatic: list[str] = []
        for mount in self.table:
            if mount.is_kernel:
                never += self._kernel_rules(mount)
            elif mount.point not in (*users, *unusable):
                automatic += self._automatic_rules(mount, idle, hidden)
        foreign = [m.point for m in self.table if not m.is_disc]
        return Found(
            tuple(never),
            tuple(automatic),
            tuple(hidden),
            unusable,
            frozenset(point for point in foreign if not self._carries(point)),
            frozenset({*self.kernel, *self.automatic, *unusable}),
        )

    def _carries(self, point: str) -> bool:
        """True if a source is there or somewhere below: then it was asked for."""
        return any(is_below(source, point) for source in self.wanted.sources)

    def _is_idle_automount(self, mount: Mount) -> bool:
        """True if something would be mounted if rsync opened this directory."""
        return mount.fs_type == AUTOMOUNT and mount.point in self.automatic

    def _is_met(self, point: str) -> bool:
        """True if rsync looks at a mount point: it is in what is sent, or beside it."""
        directory = point.rpartition("/")[0] or "/"
        is_near = any(
            is_below(point, source) or is_below(source, directory)
            for source in self.wanted.sources
        )
        covers = (
            self.kernel if self.wanted.may_include else self.kernel | self.automatic
        )
        return is_near and not self._is_covered(point, covers)

    def _is_covered(self, point: str, covers: Collection[str]) -> bool:
        return is_covered(point, covers, self.wanted.sources)

    def _kernel_rules(self, mount: Mount) -> list[str]:
        if mount.point not in self.kernel or self._is_covered(mount.point, self.kernel):
            return []
        return self._rules_without(mount)

    def _automatic_rules(
        self, mount: Mount, idle: Collection[str], hidden: Collection[str]
    ) -> list[str]:
        point = mount.point
        is_left_out = point in self.automatic and not mount.is_disc
        if not is_left_out or self._is_covered(point, self.automatic):
            return []
        if point in idle and point not in hidden:
            return [f"- {file_rule(point)}"]
        return self._rules_without(mount)

    def _rules_without(self, mount: Mount) -> list[str]:
        """Rules for a mount's contents; or for itself, if it is a single file."""
        rule = file_rule(mount.point)
        rules = leave_in(mount.point, self.wanted.sources)
        if mount.root == "/" and mount.is_local:
            return rules
        return [f"+ {rule}/", f"- {rule}", *rules]


def untouchable(table: Sequence[Mount]) -> dict[str, str]:
    """Mount points of ``table`` that nothing below is to be looked at, and why.

    Those of ordinary users' programs, those that do not answer or answer with an error,
    and directories where a look would have something mounted.
    """
    odd = [m for m in table if m.point != "/" and not m.is_local]
    users = [m.point for m in odd if m.is_of_user]
    idle = [m.point for m in odd if m.fs_type == AUTOMOUNT]
    points = [m.point for m in odd if m.point not in (*users, *idle)]
    found = {
        point: _reason(trouble) for point, trouble in _look(points, points).items()
    }
    found |= dict.fromkeys(users, _reason(None))
    return found | dict.fromkeys(idle, "nothing is mounted there now")


def _look(points: Sequence[str], left_out: Collection[str]) -> dict[str, Trouble]:
    """Those mount points that do not answer as they should, and what happened."""
    troubles: dict[str, Trouble] = {}
    shown = [point for point in points if point in left_out]
    sent = [point for point in points if point not in left_out]
    for some, look, limit_s in (
        (shown, _look_at, LOOK_LIMIT_S),
        (sent, _look_into, WANTED_LIMIT_S),
    ):
        answers = time_limit.ask([partial(look, point) for point in some], limit_s)
        troubles |= {
            point: answer
            for point, answer in zip(some, answers, strict=True)
            if isinstance(answer, time_limit.Failed | time_limit.Silent)
        }
    return troubles


def _look_at(point: str) -> None:
    os.lstat(point)


def _look_into(point: str) -> None:
    if stat.S_ISDIR(os.lstat(point).st_mode):
        with os.scandir(point) as entries:
            next(entries, None)


def _can_hide(points: Sequence[str]) -> tuple[str, ...]:
    """Those mount points that a child can be kept from seeing."""
    if not points:
        return ()
    (answer,) = time_limit.ask([partial(_try_to_hide, points)], HIDE_LIMIT_S)
    found = answer if isinstance(answer, list) else []
    return tuple(str(point) for point in found)


def _try_to_hide(points: Sequence[str]) -> list[str]:
    mounts.hiding(points)()
    left = {mount.point for mount in mounts.read()}
    return [point for point in points if point not in left]


def _reason(trouble: Trouble | None) -> str:
    if isinstance(trouble, time_limit.Silent):
        return "its file system does not answer"
    if isinstance(trouble, time_limit.Failed):
        return trouble.reason
    return "a program of an ordinary user's answers for it"


def _cannot_hide(point: str) -> BytebackError:
    return BytebackError(
        f"the file system at {quote(point)} does not answer: rsync would wait for it",
        hint=f"unmount it: umount --lazy {quote(point)}; or run the backup with the "
        "right to mount (CAP_SYS_ADMIN), which keeps it out of rsync's sight",
    )


def is_covered(path: str, covers: Collection[str], sources: Sequence[str]) -> bool:
    """True if the contents of a directory above are left out, the path's among them.

    A source in such a directory is sent, and the directories that lead to it.
    """
    return any(
        directory in covers
        and not any(
            is_below(source, directory)
            and (is_below(path, source) or is_below(source, path))
            for source in sources
        )
        for directory in mounts.parents(path)
    )


def boundaries(points: Sequence[str], sources: Sequence[str]) -> list[str]:
    """Those of ``points`` where another file system begins than that of its source.

    They are directories below ``sources``; one that does not answer is another one.
    """
    paths = [*sources, *points]
    answers = time_limit.ask([partial(_device, path) for path in paths], LOOK_LIMIT_S)
    devices = dict(zip(paths, answers, strict=True))
    return [
        point
        for point in points
        if (source := _source_above(point, sources)) is not None
        and (devices[point] != devices[source] or not isinstance(devices[point], int))
    ]


def boundary_rules(
    points: Sequence[str], sources: Sequence[str], level: int
) -> list[str]:
    """Rules that keep rsync from what begins at ``points``, as -x or -xx does (1, 2).

    rsync's own -x goes by the file system of the transfer's root, which is always /:
    of a source on another disc it would send nothing.
    """
    rules = []
    for point in points:
        rules += leave_in(point, sources)
        if level > 1 and not any(is_below(source, point) for source in sources):
            rules.append(f"- {file_rule(point)}")
    return rules


def _source_above(point: str, sources: Sequence[str]) -> str | None:
    """The nearest source that a mount point is strictly below, unless it is one."""
    above = [source for source in sources if is_below(point, source)]
    nearest = max(above, key=len, default=None)
    return None if nearest == point else nearest


def _device(path: str) -> int:
    return os.lstat(path).st_dev
