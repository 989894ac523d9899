"""Devices, images and mounts of a machine that becomes a server."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.integration.conftest import unmount
from tests.integration.programs import Outcome

HOME = Path("/srv/byteback")
PLAIN = Path("/srv/plain")  # an empty directory that is on no btrfs
IMAGE = Path("/var/lib/byteback.img")
FSTAB = Path("/etc/fstab")
CRON = Path("/etc/cron.d/byteback-prune")
SERVER_TOML = Path("/etc/byteback/server.toml")
OPTIONS = {"noatime", "user_subvol_rm_allowed"}
SIZE = 512 << 20
SetUp = Callable[..., Outcome]


def unmount_all(device: str) -> None:
    """Unmount a device from everywhere."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        if line.split()[0] == device:
            unmount(Path(line.split()[1]))


def options_at(point: Path) -> set[str]:
    """The options of what is mounted on top at ``point``."""
    lines = [
        line.split() for line in Path("/proc/self/mounts").read_text().splitlines()
    ]
    return set([line[3] for line in lines if line[1] == str(point)][-1].split(","))


def snapshot_of_machine() -> list[object]:
    """All that set-up could change, to compare before and after."""
    shown = [Path(path).read_bytes() for path in ("/etc/passwd", "/etc/group", FSTAB)]
    places = (HOME, IMAGE, CRON, Path("/run/byteback"))
    mounts = Path("/proc/self/mounts").read_text()
    return [shown, [os.path.lexists(path) for path in places], mounts]


def is_all_found(outcome: Outcome) -> bool:
    """True if a run had nothing to do."""
    kinds = {line.split(":")[0] for line in outcome.stdout.splitlines()}
    return "found" in kinds and not {"done", "would"} & kinds


def make_image(*extra: str | Path) -> list[str | Path]:
    return ["--image", IMAGE, "--size", str(SIZE), *extra]
