"""When pruning starts and stops, and what btrfs's figures mean for it."""

from __future__ import annotations

import pytest

from byteback.model.free_space import (
    DATA,
    GLOBAL_RESERVE,
    METADATA,
    FreeSpace,
    Limits,
    MetadataRoom,
    Space,
    has_settled,
    metadata_room,
    wants_pruning,
)

LIMITS = Limits(5.0, 10.0)
GIB = 2**30

# As Linux 6.18 tells it of a new file system on one disc, with metadata twice (DUP).
DUP = 1 << 5
SPACES = [
    Space(DATA, 8388608, 0),
    Space(1 << 1 | DUP, 8388608, 16384),  # system
    Space(METADATA | DUP, 53673984, 131072),
    Space(GLOBAL_RESERVE, 5767168, 1000),
]


@pytest.mark.parametrize(
    ("percent", "under_way", "wanted"),
    [
        (5.1, False, False),
        (5.0, False, True),
        (0.0, False, True),
        (7.0, True, True),
        (9.99, True, True),
        (10.0, True, False),
        (50.0, True, False),
    ],
)
def test_hysteresis(percent: float, under_way: bool, wanted: bool) -> None:
    assert wants_pruning(percent, LIMITS, under_way=under_way) is wanted


def test_room_for_metadata_counts_copies_once() -> None:
    room = metadata_room(SPACES, unallocated=941228032, devices=1)
    assert room == MetadataRoom(
        size=53673984, used=131072, reserve=5766168, unallocated=470614016
    )


def test_several_profiles_add_up() -> None:
    more = [*SPACES, Space(METADATA, 1000, 10)]
    room = metadata_room(more, 941228032, 1)
    assert room is not None
    assert (room.size, room.used) == (53674984, 131082)


@pytest.mark.parametrize(
    ("profile", "devices", "ratio"),
    [
        (0, 1, 1),
        (1 << 3, 4, 1),  # RAID0
        (1 << 4, 2, 2),  # RAID1
        (1 << 6, 4, 2),  # RAID10
        (1 << 7, 3, 1.5),  # RAID5
        (1 << 8, 4, 2),  # RAID6
        (1 << 9, 3, 3),  # RAID1C3
        (1 << 10, 4, 4),
    ],
)
def test_what_is_unallocated_is_divided_by_the_profile(
    profile: int, devices: int, ratio: float
) -> None:
    room = metadata_room([Space(METADATA | profile, 1000, 0)], 12000, devices)
    assert room is not None
    assert room.unallocated == int(12000 / ratio)


@pytest.mark.parametrize("flags", [DATA, DATA | METADATA, GLOBAL_RESERVE])
def test_without_metadata_of_its_own_there_is_no_room_for_it(flags: int) -> None:
    assert metadata_room([Space(flags, 1000, 10)], 12000, 1) is None


def test_full_metadata_is_a_shortage_though_data_has_room() -> None:
    room = MetadataRoom(size=GIB, used=GIB - 2**24, reserve=2**24, unallocated=0)
    free = FreeSpace(free_bytes=30 * GIB, total_bytes=100 * GIB, metadata=room)
    assert free.data_percent == pytest.approx(30)
    assert free.percent == 0.0
    assert wants_pruning(free.percent, LIMITS, under_way=False)
    assert str(free) == "0.0 % (of metadata)"


def test_unallocated_space_is_room_for_metadata() -> None:
    room = MetadataRoom(size=GIB, used=GIB, reserve=0, unallocated=GIB)
    assert room.free_percent == pytest.approx(50, abs=1)


def test_metadata_is_full_before_its_last_byte() -> None:
    # Seen on a volume of 1 GiB where not one more file could be made.
    room = MetadataRoom(59965440, used=50216960, reserve=5767168, unallocated=524288)
    assert room.free_percent == 0.0


def test_a_large_store_needs_no_more_than_a_fixed_room() -> None:
    room = MetadataRoom(size=900 * GIB, used=898 * GIB, reserve=0, unallocated=0)
    assert room.free_percent == pytest.approx(10, abs=0.1)


def test_free_space_without_metadata_is_what_df_shows() -> None:
    free = FreeSpace(free_bytes=1, total_bytes=8)
    assert free.percent == 12.5
    assert str(free) == "12.5 %"
    assert FreeSpace(0, 0).percent == 0.0


@pytest.mark.parametrize(
    ("readings", "settled"),
    [
        ([], False),
        ([100, 100], False),
        ([100, 100, 100], False),
        ([100, 100, 100, 100], True),
        ([0, 100, 200, 300], False),
        ([0, 300, 300, 301, 302], True),
        ([300, 200, 100, 50], True),  # a backup is writing
        ([0, 0, 0, 50], False),  # the cleaner has only begun
    ],
)
def test_settling(readings: list[int], settled: bool) -> None:
    assert has_settled(readings, window=3, tolerance=2) is settled
