"""Devices of the network are told by what the kernel shows of them in /sys.

The trees here have the names that the kernel gives; this machine's own device is real.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from byteback.server.setup.volume import needs_of_network
from byteback.system import block_device
from byteback.system.block_device import Network

# Where /sys/dev/block/MAJOR:MINOR leads, and what lies beside it.
DISCS: dict[str, tuple[str, dict[str, str], Network | None]] = {
    "a disc": ("devices/pci0000:00/0000:00:02.0/virtio1/block/vda", {}, None),
    "its partition": (
        "devices/pci0000:00/0000:00:02.0/virtio1/block/vda/vda1",
        {"partition": "1"},
        None,
    ),
    "an image of Ceph": ("devices/rbd/0/block/rbd0", {}, Network.RBD),
    "its partition of Ceph": (
        "devices/rbd/0/block/rbd0/rbd0p1",
        {"partition": "1"},
        Network.RBD,
    ),
    "a network block device": ("devices/virtual/block/nbd3", {}, Network.NBD),
    "DRBD": ("devices/virtual/block/drbd12", {}, Network.DRBD),
    "iSCSI": (
        "devices/platform/host2/session1/target2:0:0/2:0:0:1/block/sdc",
        {},
        Network.ISCSI,
    ),
    "NVMe inside": (
        "devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1",
        {"device/transport": "pcie"},
        None,
    ),
    "NVMe over TCP": (
        "devices/virtual/nvme-fabrics/ctl/nvme1/nvme1n1",
        {"device/transport": "tcp"},
        Network.NVME,
    ),
    "NVMe by two ways": (
        "devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1",
        {"device/nvme0/transport": "rdma", "device/nvme1/transport": "rdma"},
        Network.NVME,
    ),
}


@pytest.fixture
def device() -> Path:
    """A device node of this machine; any will do."""
    return Path("/dev/null")


def show(sysfs: Path, device: Path, place: str, files: dict[str, str]) -> Path:
    """Make a tree in which ``device`` is what lies at ``place``."""
    directory = sysfs / place
    directory.mkdir(parents=True)
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text + "\n")
    number = device.stat().st_rdev
    link = sysfs / "dev" / "block" / f"{os.major(number)}:{os.minor(number)}"
    link.parent.mkdir(parents=True)
    link.symlink_to(directory)
    return directory


@pytest.mark.parametrize("what", DISCS)
def test_the_network_of_a_disc(tmp_path: Path, device: Path, what: str) -> None:
    place, files, wanted = DISCS[what]
    show(tmp_path, device, place, files)
    assert block_device.network_of(device, tmp_path) is wanted


def test_what_stands_on_an_image_of_ceph_needs_it(tmp_path: Path, device: Path) -> None:
    lower = tmp_path / "devices/rbd/0/block/rbd0"
    lower.mkdir(parents=True)
    volume = show(tmp_path, device, "devices/virtual/block/dm-3", {})
    (volume / "slaves").mkdir()
    (volume / "slaves" / "rbd0").symlink_to(lower)
    assert block_device.network_of(device, tmp_path) is Network.RBD


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("10.0.0.1:6789 name=gw1,key=client.gw1,exclusive rbd store -", False),
        ("10.0.0.1:6789 name=gw1,key=client.gw1 rbd store -", True),
        # A pool of that name says nothing.
        ("10.0.0.1:6789 name=gw1,key=client.gw1 exclusive store -", True),
        ("", False),
    ],
)
def test_an_image_without_exclusive_is_told(
    tmp_path: Path, device: Path, written: str, wanted: bool
) -> None:
    show(tmp_path, device, "devices/rbd/7/block/rbd7", {})
    (tmp_path / "bus/rbd/devices/7").mkdir(parents=True)
    (tmp_path / "bus/rbd/devices/7/config_info").write_text(written)
    assert block_device.may_be_mapped_twice(device, tmp_path) is wanted


@pytest.mark.parametrize(
    ("shown", "wanted"), [("0", False), ("4294966784", True), ("", False)]
)
def test_a_device_discards_if_it_says_so(
    tmp_path: Path, device: Path, shown: str, wanted: bool
) -> None:
    disc = "devices/rbd/0/block/rbd0"
    place = show(tmp_path, device, f"{disc}/rbd0p1", {"partition": "1"})
    (place.parent / "queue").mkdir()
    (place.parent / "queue" / "discard_max_bytes").write_text(shown)
    assert block_device.discards(device, tmp_path) is wanted


def test_fstab_says_what_a_disc_waits_for() -> None:
    assert needs_of_network(None) == ()
    assert needs_of_network(Network.ISCSI) == ("_netdev",)
    assert needs_of_network(Network.RBD) == (
        "_netdev",
        "x-systemd.requires=rbdmap.service",
    )


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(OSError, match="No such file"):
        block_device.network_of(Path("/dev/no-such-disc"))
