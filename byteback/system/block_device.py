"""Tells whether a block device comes over the network, and whether it discards.

All of it is read from sysfs, by the kernel's documents Documentation/ABI/testing/
sysfs-block, sysfs-bus-rbd and sysfs-nvme. A partition is looked at as its disc, and a
device of LVM, RAID or encryption as the devices below it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

SYSFS = Path("/sys")


class Network(StrEnum):
    """How a device of the network comes to this machine."""

    RBD = "rbd"  # an image of Ceph, mapped by the kernel
    NBD = "nbd"
    DRBD = "drbd"
    ISCSI = "iscsi"
    NVME = "nvme"  # over TCP or RDMA


_DRIVERS = {Network.RBD: "rbd", Network.NBD: "nbd", Network.DRBD: "drbd"}


def network_of(device: Path, sysfs: Path = SYSFS) -> Network | None:
    """The network that a device needs; None for a disc of this machine.

    Raises OSError if there is no such device.
    """
    for disc in _discs(_directory(device, sysfs)):
        found = _network_of_disc(disc)
        if found is not None:
            return found
    return None


def discards(device: Path, sysfs: Path = SYSFS) -> bool:
    """True if space that a file system gives up can be told to the device."""
    place = _disc(_directory(device, sysfs)) / "queue" / "discard_max_bytes"
    return _read(place) not in {"", "0"}


def may_be_mapped_twice(device: Path, sysfs: Path = SYSFS) -> bool:
    """True for an image of Ceph that is mapped here without ``exclusive``.

    Another machine could map it at the same time, and nothing would refuse.
    """
    for disc in _discs(_directory(device, sysfs)):
        number = re.fullmatch(r"rbd(\d+)", disc.name)
        if number is None:
            continue
        # "MONITORS OPTION,… POOL IMAGE SNAPSHOT", as it was written to rbd/add.
        place = sysfs / "bus" / "rbd" / "devices" / number[1] / "config_info"
        words = _read(place).split()
        return len(words) > 1 and "exclusive" not in words[1].split(",")
    return False


def _directory(device: Path, sysfs: Path) -> Path:
    number = device.stat().st_rdev
    name = f"{os.major(number)}:{os.minor(number)}"
    return (sysfs / "dev" / "block" / name).resolve()


def _disc(directory: Path) -> Path:
    return directory.parent if (directory / "partition").exists() else directory


def _discs(directory: Path) -> Iterator[Path]:
    """The disc of a device, and all discs below it."""
    disc = _disc(directory)
    yield disc
    below: list[Path] = []
    with contextlib.suppress(OSError):
        below = sorted((directory / "slaves").iterdir())
    for slave in below:
        yield from _discs(slave.resolve())


def _network_of_disc(disc: Path) -> Network | None:
    for network, driver in _DRIVERS.items():
        if re.fullmatch(rf"{driver}\d+", disc.name):
            return network
    if any(re.fullmatch(r"session\d+", part) for part in disc.parts):
        return Network.ISCSI
    if disc.name.startswith("nvme"):
        # Of one controller, or of all by which the same disc is reached.
        places = [*disc.glob("device/transport"), *disc.glob("device/nvme*/transport")]
        if any(_read(place) in {"tcp", "rdma"} for place in places):
            return Network.NVME
    return None


def _read(place: Path) -> str:
    try:
        return place.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
