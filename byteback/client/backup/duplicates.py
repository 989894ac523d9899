"""Finds what a backup would send twice: bind mounts, read-only snapshots (D39).

Several mounts can show the same directory of one file system. And on btrfs, snapshots
of what is sent stand in directories that are sent, each as large as the original.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from byteback.system import mounts, time_limit
from byteback.system.btrfs import nested
from byteback.system.btrfs.nested import Nested
from byteback.system.mounts import Mount, is_below

LIMIT_S = 60.0
_ZFS_SNAPSHOTS = ".zfs"  # at the top of each file system, if they are made visible


class Duplicate(NamedTuple):
    """A directory whose contents are sent from another place, or were once the same."""

    path: str
    original: str
    is_snapshot: bool
    # Directories in it that show something else: what a mount hides in the original.
    kept: tuple[str, ...] = ()


class Subvolumes(NamedTuple):
    """All subvolumes of one file system, by its device number."""

    device: str
    found: Sequence[Nested]


@dataclass(frozen=True)
class View:
    """The machine's mounts, and what of them a backup sends."""

    table: Sequence[Mount]
    is_sent: Callable[[str], bool]  # by all rules that are byteback's own
    is_asked_for: Callable[[str], bool]  # a source is there, or in it

    @cached_property
    def _by_point(self) -> dict[str, Mount]:
        return {mount.point: mount for mount in self.table}

    def is_shown(self, path: str, mount: Mount) -> bool:
        """True if a path leads to this mount, and no other one covers it."""
        for place in (path, *mounts.parents(path)):
            if place in self._by_point:
                return self._by_point[place] == mount
        return False


def read_subvolumes(table: Sequence[Mount]) -> list[Subvolumes]:
    """The subvolumes of each btrfs that is mounted; none where they cannot be read."""
    points = {mount.device: mount.point for mount in table if mount.fs_type == "btrfs"}
    found = []
    for device, point in points.items():
        with contextlib.suppress(OSError):
            fd = os.open(point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                found.append(Subvolumes(device, nested.read(fd)))
            finally:
                os.close(fd)
    return found


def find_nested(view: View, subvolumes: Sequence[Subvolumes]) -> list[str]:
    """The paths at which subvolumes begin that are not mounted there."""
    points = {mount.point for mount in view.table}
    return [
        path
        for some in subvolumes
        for one in some.found
        for path in _places(one, some.device, view)
        if path not in points
    ]


def find(view: View, subvolumes: Sequence[Subvolumes]) -> list[Duplicate]:
    """The directories that are sent from elsewhere already, sorted by path."""
    binds = _find_binds(view)
    rest = View(
        view.table,
        lambda path: view.is_sent(path) and not _is_in(path, binds),
        view.is_asked_for,
    )
    shown = [one for some in subvolumes for one in _find_snapshots(rest, some)]
    snapshots = [
        one
        for one in (*shown, *_find_zfs_snapshots(rest))
        if one.path != "/" and not view.is_asked_for(one.path)
    ]
    return sorted([*binds, *snapshots])


def _is_in(path: str, duplicates: Sequence[Duplicate]) -> bool:
    return any(
        is_below(path, one.path) and not any(is_below(path, kept) for kept in one.kept)
        for one in duplicates
    )


def _find_binds(view: View) -> list[Duplicate]:
    """Directories that two mounts show, at one of the two places."""
    found: list[Duplicate] = []
    kept: list[Mount] = []

    def is_sent(path: str) -> bool:
        return view.is_sent(path) and not _is_in(path, found)

    for mount in sorted((m for m in view.table if m.is_disc), key=_preference):
        original = _shown_elsewhere(mount, kept, view, is_sent)
        if original is not None and is_sent(mount.point):
            found.append(_duplicate(mount.point, original, view))
            continue
        for other in kept:
            place = _place_in(mount, other)
            if (
                place not in (None, "/", mount.point)
                and view.is_shown(place, mount)
                and is_sent(place)
                and is_sent(other.point)
                and not view.is_asked_for(place)
            ):
                found.append(_duplicate(place, other.point, view))
        kept.append(mount)
    return found


def _preference(mount: Mount) -> tuple[bool, bool, int, str]:
    """Which of several mounts of one directory is the place where it is sent.

    The root; else where a subvolume is mounted, rather than inside a mount of the
    whole btrfs; else the mount that shows more, before binds of parts of it.
    """
    depth = mount.root.rstrip("/").count("/")
    is_subvolume = f"subvol={mount.root}" in mount.super_options
    return (
        mount.point != "/",
        not is_subvolume,
        -depth if is_subvolume else depth,
        mount.point,
    )


def _shown_elsewhere(
    mount: Mount, kept: Sequence[Mount], view: View, is_sent: Callable[[str], bool]
) -> str | None:
    """The path at which another mount shows what is mounted here, if it is sent."""
    if mount.point == "/" or view.is_asked_for(mount.point):
        return None
    for other in kept:
        place = _place_in(other, mount)
        is_shown = place is not None and view.is_shown(place, other)
        # A single file is not worth a rule, nor news.
        if place is not None and is_shown and is_sent(place) and _is_directory(place):
            return place
    return None


def _place_in(mount: Mount, other: Mount) -> str | None:
    """The path at which ``mount`` shows the root of ``other``, if it does."""
    if mount.device != other.device or not is_below(other.root, mount.root):
        return None
    rest = other.root[len(mount.root.rstrip("/")) :].strip("/")
    return mount.point if not rest else f"{mount.point.rstrip('/')}/{rest}"


def _is_directory(path: str) -> bool:
    (answer,) = time_limit.ask([lambda: os.path.isdir(path)], LIMIT_S)  # noqa: PTH112
    return answer is True


def _duplicate(path: str, original: str, view: View) -> Duplicate:
    top = original.rstrip("/")
    hidden = [
        f"{path}{mount.point[len(top) :]}"
        for mount in view.table
        if mount.point.startswith(f"{top}/") and not is_below(mount.point, path)
    ]
    return Duplicate(path, original, False, tuple(hidden))


def _find_snapshots(view: View, subvolumes: Subvolumes) -> Iterator[Duplicate]:
    """Read-only snapshots of subvolumes that are sent, where they would be sent."""
    by_uuid = {one.uuid: one for one in subvolumes.found}
    places = {
        one.uuid: list(_places(one, subvolumes.device, view))
        for one in subvolumes.found
    }
    for one in subvolumes.found:
        parent = one
        met: set[bytes] = set()
        # By way of other ones: a snapshot of a snapshot.
        while _is_frozen(parent) and parent.uuid not in met:
            met.add(parent.uuid)
            parent = by_uuid.get(parent.parent_uuid, parent)
        if not _is_frozen(parent) and places[parent.uuid] and parent != one:
            for path in places[one.uuid]:
                yield Duplicate(path, places[parent.uuid][0], True)


def _is_frozen(subvolume: Nested) -> bool:
    """True if it still is what was snapshotted: received ones are another machine's."""
    return (
        subvolume.is_read_only
        and any(subvolume.parent_uuid)
        and not any(subvolume.received_uuid)
    )


def _places(one: Nested, device: str, view: View) -> Iterator[str]:
    """The path at which a subvolume can be seen, and is sent."""
    for mount in view.table:
        if mount.device == device and is_below(one.path, mount.root):
            rest = one.path[len(mount.root.rstrip("/")) :].strip("/")
            path = f"{mount.point.rstrip('/')}/{rest}".rstrip("/") or "/"
            if view.is_shown(path, mount) and view.is_sent(path):
                yield path


def _find_zfs_snapshots(view: View) -> Iterator[Duplicate]:
    """Snapshots that ZFS shows, in a directory at the top or as mounts of their own."""
    sets = {m.source: m.point for m in view.table if m.fs_type == "zfs"}
    for source, point in sets.items():
        original = sets.get(source.partition("@")[0])
        path = point if "@" in source else f"{point.rstrip('/')}/{_ZFS_SNAPSHOTS}"
        if original and view.is_sent(original) and view.is_sent(path):
            yield Duplicate(path, original, True)
