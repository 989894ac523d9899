"""What the devices of a btrfs can do without."""

from __future__ import annotations

import pytest

from byteback.model.device_room import (
    DUP,
    GIB,
    RAID1,
    RAID6,
    Device,
    devices_needed,
    lacking_bytes,
    needs_balance,
    raw_used,
)
from byteback.model.free_space import DATA, GLOBAL_RESERVE, METADATA, Space
from byteback.system.btrfs.devices import parse_replacement

RESERVE = Space(METADATA | GLOBAL_RESERVE, GIB, GIB)


def device(number: int, size: int, used: int) -> Device:
    return Device(number, f"/dev/sd{number}", size * GIB, used * GIB)


def test_each_copy_counts_and_the_reserve_does_not() -> None:
    spaces = [Space(DATA, 9 * GIB, 5 * GIB), Space(METADATA | DUP, 2 * GIB, GIB)]
    assert raw_used([*spaces, RESERVE]) == 7 * GIB


def test_room_for_all_but_one() -> None:
    devices = [device(1, 10, 6), device(2, 10, 6)]
    spaces = [Space(DATA, 12 * GIB, 8 * GIB)]
    assert lacking_bytes(devices, spaces, devices[0]) == 0
    spaces = [Space(DATA, 12 * GIB, 11 * GIB)]
    assert lacking_bytes(devices, spaces, devices[0]) == 2 * GIB  # and the margin


def test_profiles_name_how_many_devices_they_take() -> None:
    spaces = [Space(DATA | RAID6, GIB, 0), Space(DATA | RAID1, GIB, 0)]
    assert devices_needed(spaces, DATA) == (3, "RAID6")
    assert devices_needed([Space(METADATA | DUP, GIB, 0)], METADATA) == (1, "")


@pytest.mark.parametrize(
    ("flags", "used", "expected"),
    [
        (DATA, (10, 10, 0), False),  # a single copy goes to the new device
        (DATA | RAID1, (10, 10, 0), True),  # two full ones, and one that is empty
        (DATA | RAID1, (10, 5, 0), False),
        (DATA | RAID6, (10, 5, 0), True),
    ],
)
def test_the_data_is_spread_only_where_it_must_be(
    flags: int, used: tuple[int, ...], expected: bool
) -> None:
    devices = [device(number, 10, each) for number, each in enumerate(used)]
    assert needs_balance(devices, [Space(flags, GIB, 0)]) is expected


def test_what_btrfs_says_of_a_replacement() -> None:
    running = parse_replacement("57.3% done, 0 write errs, 0 uncorr. read errs\n")
    assert (running.percent, running.is_finished) == (57.3, False)
    began = "Started on 29.Nov 06:48:06, "
    done = parse_replacement(
        f"{began}finished on 29.Nov 06:48:07, 0 write errs, 12 uncorr. read errs"
    )
    assert (done.is_finished, done.unreadable) == (True, 12)
    ended = parse_replacement(
        f"{began}canceled on 29.Nov 06:48:07 at 3.1%, 0 write errs, 0 uncorr. read errs"
    )
    assert ended.is_cancelled
    assert not parse_replacement("Never started").is_finished
