"""Everything that speaks against a change of discs, found before the first step."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from byteback.errors import BusyError, UsageError, quote
from byteback.model import device_room
from byteback.model.device_room import Device
from byteback.model.free_space import DATA, METADATA
from byteback.model.size import format_size
from byteback.server.discs.volume import Volume
from byteback.server.setup.steps import SMALLEST_IMAGE, Outcome, StepRunner
from byteback.system.btrfs import devices, filesystem

HOW_TO_STOP = {
    devices.REMOVE: "btrfs device remove cancel",
    devices.REPLACE: "btrfs replace cancel",
    devices.BALANCE: "btrfs balance cancel",
    devices.PAUSED: "btrfs balance cancel",
}


def check_idle(volume: Volume, *, but: str = devices.NONE) -> str:
    """What the kernel is doing with the devices: nothing, or ``but``.

    Raises BusyError for anything else.
    """
    going_on = devices.exclusive_operation(volume.point)
    if going_on in (devices.NONE, but):
        return going_on
    stop = HOW_TO_STOP.get(going_on)
    hint = "wait until it has ended"
    if stop is not None:
        hint += f", or end it with '{stop} {volume.point}'"
    raise BusyError(f"btrfs is busy with '{going_on}' on {volume.name}", hint=hint)


def check_new(volume: Volume, path: Path, *, may_format: bool) -> None:
    """Raise UsageError for a device that cannot become part of the store."""
    name = quote(str(path))
    if not filesystem.is_block_device(path):
        raise UsageError(f"{name} is no block device", hint="'lsblk' lists them")
    if volume.find(str(path)) is not None:
        raise UsageError(f"{name} is part of {volume.name} already")
    if devices.is_read_only(path):
        raise UsageError(f"{name} is read-only", hint="choose another device")
    if filesystem.is_busy(path):
        raise UsageError(
            f"{name} is in use: mounted, or part of a RAID, LVM, swap or another btrfs",
            hint="'lsblk' shows by what; free it first, or choose another device",
        )
    size = devices.capacity(path)
    if size < SMALLEST_IMAGE:
        raise UsageError(
            f"{name} has only {format_size(size)}",
            hint=f"a device of the store has {format_size(SMALLEST_IMAGE)} at least",
        )
    kinds = sorted({found.kind for found in filesystem.probe(path)})
    if kinds and not may_format:
        raise UsageError(
            f"{name} is not empty, it holds: {', '.join(kinds)}",
            hint="--format takes the device all the same: everything on it is lost",
        )


def try_out(path: Path, runner: StepRunner) -> Iterator[Outcome]:
    """Write to a new device and read it, before anything depends on it."""
    yield runner.do(
        f"try {quote(str(path))} out: write to it, and read it again",
        partial(devices.try_out, path),
    )


def check_replacement(old: Device, path: Path) -> None:
    """Raise UsageError for a new device that is smaller than the old one."""
    size = devices.capacity(path)
    if size < old.size:
        raise UsageError(
            f"{quote(str(path))} has {format_size(size)}, and "
            f"{quote(old.name)} has {format_size(old.size)} in use as a device",
            hint=f"take a device that is as large; or --add-device {path} first, and "
            f"then --remove-device {old.path or old.number}",
        )


def check_removal(volume: Volume, old: Device) -> None:
    """Raise UsageError where the other devices cannot take what is on ``old``."""
    rest = len(volume.devices) - 1
    name = quote(old.name)
    if rest == 0:
        raise UsageError(
            f"{name} is the only device of {volume.name}",
            hint=f"--replace-device {old.path or old.number} NEW moves the store",
        )
    needed, profile = device_room.devices_needed(volume.spaces, DATA)
    if rest < needed:
        raise UsageError(
            f"data is kept as {profile}, which takes {needed} devices",
            hint="--replace-device keeps that. Or keep data once, if that is meant: "
            f"btrfs balance start -dconvert=single {volume.point}",
        )
    needed, profile = device_room.devices_needed(volume.spaces, METADATA)
    if rest < needed and rest > 1:
        raise UsageError(
            f"metadata is kept as {profile}, which takes {needed} devices",
            hint=f"first: btrfs balance start -mconvert=raid1 {volume.point}",
        )
    lacking = device_room.lacking_bytes(volume.devices, volume.spaces, old)
    if lacking:
        raise UsageError(
            f"what is stored has no room without {name}: {format_size(lacking)} too "
            "few",
            hint="--add-device another one first, or let byteback-prune make room",
        )
