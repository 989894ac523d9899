"""When pruning starts and stops, and what btrfs's figures mean for it."""

from __future__ import annotations

import pytest

from byteback.model.free_space import (
    FreeSpace,
    Limits,
    MetadataRoom,
    has_settled,
    parse_metadata_room,
    wants_pruning,
)

LIMITS = Limits(5.0, 10.0)
GIB = 2**30

# As btrfs-progs 6.2 prints it to a user who is not root.
USAGE = """\
Overall:
    Device size:\t\t        1073741824
    Device allocated:\t\t         132513792
    Device unallocated:\t\t         941228032
    Device missing:\t\t                 0
    Device slack:\t\t18446744072637906944
    Used:\t\t\t            294912
    Free (estimated):\t\t         949616640\t(min: 479002624)
    Free (statfs, df):\t\t         948568064
    Data ratio:\t\t\t              1.00
    Metadata ratio:\t\t              2.00
    Global reserve:\t\t           5767168\t(used: 1000)
    Multiple profiles:\t\t                no

Data,single: Size:8388608, Used:0 (0.00%)

Metadata,DUP: Size:53673984, Used:131072 (0.24%)

System,DUP: Size:8388608, Used:16384 (0.20%)
"""


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


def test_usage_is_read_as_an_unprivileged_user_gets_it() -> None:
    room = parse_metadata_room(USAGE)
    assert room == MetadataRoom(
        size=53673984, used=131072, reserve=5766168, unallocated=470614016
    )


def test_several_profiles_add_up() -> None:
    more = USAGE + "\nMetadata,single: Size:1000, Used:10 (1.00%)\n"
    room = parse_metadata_room(more)
    assert room is not None
    assert (room.size, room.used) == (53674984, 131082)


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", USAGE.replace("Metadata,DUP", "Data+Metadata,single")],
)
def test_usage_that_says_too_little_is_left_out(text: str) -> None:
    assert parse_metadata_room(text) is None


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
