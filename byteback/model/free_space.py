"""Decides from the room that is left whether to prune."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

# Room for metadata beyond this counts for nothing: no single backup needs more, and
# a large store would otherwise give up history for gigabytes that stay unused.
METADATA_CAP = 20 * 2**30
# The kernel sets room aside for each change before it makes it, so that files can no
# longer be made while some is left: 4 MiB of 57 were, on a volume full of names.
METADATA_MARGIN = 16 * 2**20
METADATA_MUCH = 512 * 2**20  # set aside for metadata; less is not worth fetching back

# BTRFS_BLOCK_GROUP_* of linux/btrfs_tree.h: what a space holds, and how often.
DATA, METADATA = 1 << 0, 1 << 2
GLOBAL_RESERVE = 1 << 49
_COPIES = {1 << 4: 2, 1 << 5: 2, 1 << 6: 2, 1 << 9: 3, 1 << 10: 4}  # RAID1, DUP ...
_PARITIES = {1 << 7: 1, 1 << 8: 2}  # RAID5, RAID6


class Space(NamedTuple):
    """The room that btrfs has allocated to one kind of use, in bytes."""

    flags: int
    size: int
    used: int


class Limits(NamedTuple):
    """Pruning starts at ``min_percent`` free and goes on until ``max_percent``."""

    min_percent: float
    max_percent: float


class MetadataRoom(NamedTuple):
    """The room for metadata, in bytes of the file system (copies count once)."""

    size: int  # allocated to metadata
    used: int
    reserve: int  # kept back by the kernel for deletions when all else is full
    unallocated: int  # could still become metadata

    @property
    def room_bytes(self) -> int:
        """The whole that shares are counted of."""
        return min(self.size + self.unallocated, METADATA_CAP)

    @property
    def is_mostly_unused(self) -> bool:
        """True if metadata holds on to much more than it needs."""
        return self.size > METADATA_MUCH and self.used + self.reserve < self.size // 2

    @property
    def free_percent(self) -> float:
        """The share that is left for new metadata, between 0 and 100."""
        whole = self.size + self.unallocated
        margin = min(METADATA_MARGIN, whole // 8)
        left = whole - self.used - self.reserve - margin
        return _percent(left, self.room_bytes)


class FreeSpace(NamedTuple):
    """The room in a store: what statvfs says, and what metadata leaves."""

    free_bytes: int
    total_bytes: int
    metadata: MetadataRoom | None = None

    @property
    def data_percent(self) -> float:
        """Free space as df shows it."""
        return _percent(self.free_bytes, self.total_bytes)

    @property
    def percent(self) -> float:
        """The scarcer of the two: either one at zero stops every backup."""
        if self.metadata is None:
            return self.data_percent
        return min(self.data_percent, self.metadata.free_percent)

    def with_returned(self, data: int, metadata: int) -> FreeSpace:
        """The room if that many bytes were given back."""
        room = self.metadata
        if room is not None:
            room = room._replace(used=max(0, room.used - metadata))
        return FreeSpace(
            min(self.total_bytes, self.free_bytes + data), self.total_bytes, room
        )

    def __str__(self) -> str:
        if self.percent < self.data_percent:
            return f"{self.percent:.1f} % (of metadata)"
        return f"{self.percent:.1f} %"


def metadata_room(
    spaces: Collection[Space], unallocated: int, devices: int
) -> MetadataRoom | None:
    """Read the room for metadata; ``unallocated`` is in bytes of all the devices.

    A file system with mixed block groups has no metadata of its own: None.
    """
    own = [s for s in spaces if s.flags & METADATA and not s.flags & DATA]
    size = sum(space.size for space in own)
    if not size:
        return None
    raw = sum(space.size * _ratio(space.flags, devices) for space in own)
    reserves = [s for s in spaces if s.flags & GLOBAL_RESERVE]
    return MetadataRoom(
        size=size,
        used=sum(space.used for space in own),
        reserve=sum(max(0, space.size - space.used) for space in reserves),
        unallocated=int(unallocated * size / raw),
    )


def _ratio(flags: int, devices: int) -> float:
    """The number of bytes on the devices for each byte."""
    for bit, parities in _PARITIES.items():
        if flags & bit:
            return devices / (devices - parities) if devices > parities else 1.0
    return max((copies for bit, copies in _COPIES.items() if flags & bit), default=1)


def wants_pruning(percent: float, limits: Limits, *, under_way: bool) -> bool:
    """True if pruning is due: from the lower limit on, and then up to the upper one."""
    if under_way:
        return percent < limits.max_percent
    return percent <= limits.min_percent


def wants_pruning_for_others(
    percent: float, limits: Limits, *, under_way: bool
) -> bool:
    """True if pruning is due although a suddenly larger backup takes the room.

    That backup is stopped at the lower limit. What is missing below it the others have
    taken, and they must go on: from half of the limit on, and back up to it.
    """
    if under_way:
        return percent < limits.min_percent
    return is_nearly_full(percent, limits)


def is_nearly_full(percent: float, limits: Limits) -> bool:
    """True if backups of the usual size may soon find no room."""
    return percent <= limits.min_percent / 2


def has_settled(free_bytes: Sequence[int], window: int, tolerance: int) -> bool:
    """True if free space has stopped growing over the last ``window`` readings.

    Shrinking counts as settled: backups go on writing while a deletion gives back.
    """
    if len(free_bytes) <= window:
        return False
    return free_bytes[-1] - free_bytes[-1 - window] <= tolerance


def _percent(part: int, whole: int) -> float:
    return 100.0 * min(max(part, 0), whole) / whole if whole > 0 else 0.0
