"""A new device takes an old one's place, which may have failed or be gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from byteback.errors import ToolError, UsageError, quote
from byteback.model.device_room import Device
from byteback.model.size import format_size
from byteback.server.discs import checks, growing, mount_line, watch
from byteback.server.discs.adding import warn_of_loop
from byteback.server.discs.volume import Volume
from byteback.server.setup.steps import Kind, Outcome, StepRunner, found, warning
from byteback.server.store import presence
from byteback.server.store.layout import find_store
from byteback.system.btrfs import devices, health


@dataclass(frozen=True)
class Replacing:
    """An old device, by path or number, and the new one."""

    old: str
    new: Path
    may_format: bool
    watcher: watch.Watcher

    def steps(
        self, volume: Volume, runner: StepRunner, confirm: Callable[[str], None]
    ) -> Iterator[Outcome]:
        """Check, ask, copy, use all of the new device, and let the mount find it."""
        member = volume.find(str(self.new))
        image = mount_line.image_of(volume)
        if member is not None and member.number != devices.REPLACEMENT:
            # An earlier run came so far.
            if volume.find(self.old) is not None:
                raise UsageError(
                    f"{quote(str(self.new))} is part of {volume.name} already",
                    hint=f"--remove-device {self.old} moves what is on that one to "
                    "the others",
                )
            yield found(f"{quote(str(self.new))} has taken the place")
            yield from mount_line.provide(volume, volume.devices, runner)
            return
        yield from self._replace(volume, runner, confirm, is_running=bool(member))
        if runner.dry_run:
            return
        volume = volume.looked_at_again()
        yield from _look_at_result(volume)
        yield from growing.steps(volume, None, runner)
        yield from mount_line.provide(volume, volume.devices, runner)
        if image is not None and mount_line.image_of(volume) is None:
            yield Outcome(
                Kind.NEXT, f"the image {quote(str(image))} is not used any more"
            )

    def _replace(
        self,
        volume: Volume,
        runner: StepRunner,
        confirm: Callable[[str], None],
        *,
        is_running: bool,
    ) -> Iterator[Outcome]:
        old, name = volume.get(self.old), quote(str(self.new))
        going_on = checks.check_idle(
            volume, but=devices.REPLACE if is_running else devices.NONE
        )
        work = _copying(volume, old)
        if is_running:
            if going_on == devices.REPLACE:
                watch.join(work, self.watcher)
            _check_finished(volume)
            yield found(f"{name} was taking the place of {quote(old.name)}")
            return
        checks.check_new(volume, self.new, may_format=self.may_format)
        checks.check_replacement(old, self.new)
        mount_line.check(volume, old)
        yield from warn_of_loop(self.new)
        errors = devices.device_errors(volume.point, old)
        for line in errors:
            yield warning(line)
        confirm(
            f"All that is on {quote(old.name)} is copied to {name} "
            f"({format_size(devices.capacity(self.new))}), which may take hours. What "
            f"is on {name} is lost, and {quote(old.name)} is free at the end."
        )
        yield from checks.try_out(self.new, runner)
        yield runner.do(
            f"copy {format_size(old.used)} from {quote(old.name)} to {name}, which "
            "takes its place",
            partial(self._run, volume, old, work, avoids_old=bool(errors)),
        )

    def _run(
        self, volume: Volume, old: Device, work: watch.Work, *, avoids_old: bool
    ) -> None:
        argv = devices.replace_argv(
            volume.point, old, self.new, force=self.may_format, avoids_old=avoids_old
        )
        try:
            watch.run(work, argv, self.watcher)
        except ToolError:
            if devices.read_replacement(volume.point).is_cancelled:
                _check_finished(volume)
            raise
        _check_finished(volume)


def _copying(volume: Volume, old: Device) -> watch.Work:
    point = volume.point
    return watch.Work(
        point,
        devices.REPLACE,
        old.size,
        lambda: devices.read_replacement(point).percent,
        f"the replacement of {quote(old.name)} goes on, also after a restart of the "
        "machine: the same command shows how far it is, "
        f"'btrfs replace cancel {point}' stops it and leaves the old device in place",
    )


def _check_finished(volume: Volume) -> None:
    """Raise ToolError if the replacement was cancelled, or failed."""
    last = devices.read_replacement(volume.point)
    if not last.is_finished:
        raise ToolError(
            "the replacement did not come to its end: the old device is still in its "
            "place",
            hint="give the same command again, with --format, to begin anew",
            details=[last.text],
        )


def _look_at_result(volume: Volume) -> Iterator[Outcome]:
    """Tell what may be amiss; raises StoreError if the new device fails already."""
    presence.check_writable(find_store())
    for line in health.device_errors(volume.point):
        yield warning(line)
    last = devices.read_replacement(volume.point)
    if last.is_finished and last.unreadable:
        yield warning(
            f"{last.unreadable} blocks could not be read from the old device, and had "
            "no good copy"
        )
    yield Outcome(
        Kind.NEXT,
        f"'btrfs scrub start {volume.point}' reads all that is on the new device and "
        "compares it with its checksums; the kernel's log names files that differ",
    )
