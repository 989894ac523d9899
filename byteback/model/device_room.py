"""What the devices of a btrfs can do without: profiles, copies and room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from byteback.model.free_space import DATA, GLOBAL_RESERVE, METADATA, Space

RAID0, RAID1, DUP, RAID10 = 1 << 3, 1 << 4, 1 << 5, 1 << 6
RAID5, RAID6, RAID1C3, RAID1C4 = 1 << 7, 1 << 8, 1 << 9, 1 << 10
# On so many devices a profile has its pieces; the others need one.
DEVICES_NEEDED = {
    RAID0: 2,
    RAID1: 2,
    RAID10: 2,
    RAID5: 2,
    RAID6: 3,
    RAID1C3: 3,
    RAID1C4: 4,
}
COPIES = {RAID1: 2, DUP: 2, RAID10: 2, RAID1C3: 3, RAID1C4: 4, RAID5: 2, RAID6: 3}
NAMES = {
    RAID0: "RAID0",
    RAID1: "RAID1",
    RAID10: "RAID10",
    RAID5: "RAID5",
    RAID6: "RAID6",
    RAID1C3: "RAID1C3",
    RAID1C4: "RAID1C4",
}
GIB = 1 << 30
MARGIN_SHARE = 8  # of the rest: btrfs hands out room in pieces of up to 1 GiB


class Device(NamedTuple):
    """A device of a btrfs. ``path`` is empty if the device is missing."""

    number: int
    path: str
    size: int  # bytes that the file system uses at most
    used: int  # of them, bytes that are handed out to data and metadata

    @property
    def unallocated(self) -> int:
        """Bytes that nothing was handed out of."""
        return max(0, self.size - self.used)

    @property
    def name(self) -> str:
        """The device as messages name it."""
        return self.path or f"the missing device {self.number}"


def devices_needed(spaces: Sequence[Space], kind: int) -> tuple[int, str]:
    """On how many devices data or metadata has its pieces, and the profile's name."""
    needed, name = 1, ""
    for each in spaces:
        if not each.flags & kind or each.flags & GLOBAL_RESERVE:
            continue
        for profile, count in DEVICES_NEEDED.items():
            if each.flags & profile and count > needed:
                needed, name = count, NAMES[profile]
    return needed, name


def raw_used(spaces: Sequence[Space]) -> int:
    """Bytes on all devices that hold something, each copy counted."""
    total = 0
    for each in spaces:
        if each.flags & GLOBAL_RESERVE:
            continue
        copies = max(
            (count for bit, count in COPIES.items() if each.flags & bit), default=1
        )
        total += each.used * copies
    return total


def lacking_bytes(
    devices: Sequence[Device], spaces: Sequence[Space], removed: Device
) -> int:
    """How many bytes too few the other devices have for all that is stored; 0: none."""
    rest = sum(one.size for one in devices if one.number != removed.number)
    margin = min(GIB, rest // MARGIN_SHARE)
    return max(0, raw_used(spaces) + margin - rest)


def percent_free_without(
    devices: Sequence[Device], spaces: Sequence[Space], removed: Device
) -> float:
    """The share of the other devices that will be free."""
    rest = sum(one.size for one in devices if one.number != removed.number)
    return 100.0 * max(0, rest - raw_used(spaces)) / rest if rest else 0.0


def needs_balance(devices: Sequence[Device], spaces: Sequence[Space]) -> bool:
    """True if new data finds no room, though a device has some.

    A profile of several devices needs room on so many of them at once.
    """
    for kind in (DATA, METADATA):
        needed, _ = devices_needed(spaces, kind)
        least = [min(GIB, one.size // 10) for one in devices]
        with_room = sum(
            one.unallocated >= enough
            for one, enough in zip(devices, least, strict=True)
        )
        if with_room < needed <= len(devices):
            return True
    return False
