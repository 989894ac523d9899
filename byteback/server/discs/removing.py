"""A device leaves the store; what is on it moves to the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from byteback.errors import ToolError, quote
from byteback.model import device_room
from byteback.model.device_room import Device
from byteback.model.free_space import METADATA
from byteback.model.size import format_size
from byteback.server.discs import checks, mount_line, watch
from byteback.server.discs.volume import Volume
from byteback.server.setup.steps import Outcome, StepRunner, warning
from byteback.server.store import settings
from byteback.system.btrfs import devices
from byteback.system.btrfs.commands import compact, is_out_of_space

TO_ONE_DEVICE = ("-mconvert=dup", "-sconvert=dup")


@dataclass(frozen=True)
class Removal:
    """A device to be removed, by its path or its number."""

    name: str
    watcher: watch.Watcher

    def steps(
        self, volume: Volume, runner: StepRunner, confirm: Callable[[str], None]
    ) -> Iterator[Outcome]:
        """Check, ask, move all that is there, and let the mount find the rest."""
        old = volume.get(self.name)
        name = quote(old.name)
        rest = [device for device in volume.devices if device != old]
        going_on = checks.check_idle(volume, but=devices.REMOVE)
        work = _moving(volume, old)
        if going_on == devices.REMOVE:
            watch.join(work, self.watcher)
            volume.looked_at_again()
        else:
            checks.check_removal(volume, old)
            mount_line.check(volume, old)
            yield from _warn_of_pruning(volume, old)
            confirm(
                f"{format_size(old.used)} move from {name} to the other devices of "
                f"{volume.name}, which may take hours. Then {name} is empty and free."
            )
            yield from self._convert(volume, len(rest), runner)
            yield runner.do(
                f"move {format_size(old.used)} from {name} to the others, and remove "
                "it",
                partial(self._remove, volume, old, work),
            )
        yield from mount_line.provide(volume, rest, runner)

    def _remove(self, volume: Volume, old: Device, work: watch.Work) -> None:
        argv = devices.remove_argv(volume.point, old)
        try:
            watch.run(work, argv, self.watcher)
        except ToolError as error:
            if not is_out_of_space(error) or not compact(volume.point, "data"):
                raise
            # What lay scattered is together now, and leaves room for whole pieces.
            watch.run(work, argv, self.watcher)

    def _convert(
        self, volume: Volume, rest: int, runner: StepRunner
    ) -> Iterator[Outcome]:
        """One device cannot keep metadata on two: it keeps it twice instead."""
        needed, profile = device_room.devices_needed(volume.spaces, METADATA)
        if rest >= needed:
            return
        argv = devices.balance_argv(volume.point, *TO_ONE_DEVICE)
        work = watch.Work(
            volume.point,
            devices.BALANCE,
            sum(one.used for one in volume.spaces if one.flags & METADATA),
            partial(devices.balance_percent, volume.point),
            f"the kernel goes on: 'btrfs balance status {volume.point}' shows how far "
            "it is; give the same command again when it has ended",
        )
        yield runner.do(
            f"keep metadata twice on one device, in place of {profile}",
            partial(watch.run, work, argv, self.watcher),
        )


def _moving(volume: Volume, old: Device) -> watch.Work:
    point: Path = volume.point

    def percent() -> float:
        for device in devices.read(point):
            if device.number == old.number:
                return 100.0 * (1 - device.used / old.used) if old.used else 0.0
        return 100.0

    return watch.Work(
        point,
        devices.REMOVE,
        old.used,
        percent,
        f"the removal of {quote(old.name)} goes on: the same command shows how far it "
        f"is, 'btrfs device remove cancel {point}' stops it. A restart of the machine "
        "stops it, too; what was moved stays moved",
    )


def _warn_of_pruning(volume: Volume, old: Device) -> Iterator[Outcome]:
    least = settings.load().min_percent
    left = device_room.percent_free_without(volume.devices, volume.spaces, old)
    if left <= least:
        yield warning(
            f"only {left:.1f} percent will be free: pruning then deletes snapshots "
            "until there is room again"
        )
