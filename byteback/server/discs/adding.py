"""One more device for the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from byteback.errors import UsageError, quote
from byteback.model import device_room
from byteback.model.free_space import METADATA
from byteback.model.size import format_size
from byteback.server.discs import checks, mount_line, watch
from byteback.server.discs.volume import Volume
from byteback.server.setup.steps import Kind, Outcome, StepRunner, found, warning
from byteback.system.btrfs import devices

Confirm = Callable[[str], None]


@dataclass(frozen=True)
class Addition:
    """A device to be added; with ``may_format`` what is on it may be lost."""

    path: Path
    may_format: bool
    watcher: watch.Watcher

    def steps(
        self, volume: Volume, runner: StepRunner, confirm: Confirm
    ) -> Iterator[Outcome]:
        """Check, ask, add, and spread the data where its profile needs that."""
        name = quote(str(self.path))
        going_on = checks.check_idle(volume, but=devices.BALANCE)
        if volume.find(str(self.path)) is not None:
            yield found(f"{name} is part of {volume.name}")
        else:
            checks.check_idle(volume)
            yield from self._add(volume, runner, confirm)
            if not runner.dry_run:
                volume = volume.looked_at_again()
        yield from self._spread(volume, runner, is_running=going_on != devices.NONE)
        yield from mount_line.provide(volume, volume.devices, runner)
        yield from _advise(volume)

    def _add(
        self, volume: Volume, runner: StepRunner, confirm: Confirm
    ) -> Iterator[Outcome]:
        _check_image(volume)
        checks.check_new(volume, self.path, may_format=self.may_format)
        name, size = quote(str(self.path)), format_size(devices.capacity(self.path))
        yield from warn_of_loop(self.path)
        confirm(
            f"{name} ({size}) becomes part of {volume.name}. What is on it is lost."
        )
        yield from checks.try_out(self.path, runner)
        yield runner.do(
            f"add {name}, {size}, to {volume.name}",
            partial(devices.add, volume.point, self.path, force=self.may_format),
        )

    def _spread(
        self, volume: Volume, runner: StepRunner, *, is_running: bool
    ) -> Iterator[Outcome]:
        if is_running:
            watch.join(_balance(volume), self.watcher)
            yield found("the data was being spread over the devices")
        elif device_room.needs_balance(volume.devices, volume.spaces):
            argv = devices.balance_argv(volume.point)
            yield runner.do(
                "spread the data over the devices, which its profile needs",
                partial(watch.run, _balance(volume), argv, self.watcher),
            )


def warn_of_loop(path: Path) -> Iterator[Outcome]:
    """Tell that a loop device is not there after the machine's next start."""
    file = devices.backing_file(str(path))
    if file is not None:
        yield warning(
            f"{quote(str(path))} stands for the file {quote(str(file))}: unless this "
            "machine sets it up at each start, the store cannot be mounted any more"
        )


def _check_image(volume: Volume) -> None:
    image = mount_line.image_of(volume)
    if image is not None:
        loop = volume.devices[0].path
        raise UsageError(
            f"the store is in the image {quote(str(image))}, which no other device can "
            "be added to",
            hint=f"--grow --size enlarges it; --replace-device {loop} NEW moves the "
            "store to a device",
        )


def _balance(volume: Volume) -> watch.Work:
    point = volume.point
    return watch.Work(
        point,
        devices.BALANCE,
        device_room.raw_used(volume.spaces),
        partial(devices.balance_percent, point),
        f"the kernel goes on spreading the data: 'btrfs balance status {point}' shows "
        "how far it is, and 'pause' or 'cancel' in place of 'status' stops it",
    )


def _advise(volume: Volume) -> Iterator[Outcome]:
    """Say what is not done by itself (D56)."""
    needed, _ = device_room.devices_needed(volume.spaces, METADATA)
    if len(volume.devices) > 1 and needed == 1:
        yield Outcome(
            Kind.NEXT,
            "data and metadata are on one device each: if any device is lost, so is "
            "the store. While all have room, "
            f"'btrfs balance start -mconvert=raid1 {volume.point}' keeps the metadata "
            "on two, which lets the rest be read; see byteback-setup-server(1)",
        )
