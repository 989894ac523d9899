"""The store uses all of its devices, which were enlarged; an image is enlarged here."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from byteback.errors import BytebackError, UsageError, quote
from byteback.model.device_room import Device
from byteback.model.size import format_size
from byteback.server.discs import checks
from byteback.server.discs.volume import Volume
from byteback.server.setup.steps import Outcome, StepRunner, found, warning
from byteback.system.btrfs import devices

# btrfs leaves the last bytes of a device alone that make no whole block.
SLACK = 1 << 20


def steps(volume: Volume, size: int | None, runner: StepRunner) -> Iterator[Outcome]:
    """Enlarge the image to ``size`` bytes, if that is given, then use all there is."""
    checks.check_idle(volume)
    present = [device for device in volume.devices if device.path]
    image = _image(present, size) if size is not None else None
    for device in present:
        file = devices.backing_file(device.path)
        if file is not None and file == image and size is not None:
            yield from _enlarge(file, size, runner)
        if file is not None and not (runner.dry_run and file == image):
            yield from _follow(device, file, runner)
        target = size if runner.dry_run and file == image else None
        yield from _use_all(volume, device, target, runner)


def _image(present: list[Device], size: int) -> Path:
    """The image to enlarge. Raises UsageError where there is not exactly one."""
    files = [devices.backing_file(device.path) for device in present]
    if len(files) != 1 or files[0] is None:
        raise UsageError(
            "--size is for a store in an image",
            hint="enlarge the device itself (lvextend, growpart and the like), then "
            "run --grow without it",
        )
    image = files[0]
    status = image.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{quote(str(image))} is no regular file")
    if size < status.st_size:
        raise UsageError(
            f"{quote(str(image))} has {format_size(status.st_size)} already",
            hint="a store can grow, and does not shrink",
        )
    return image


def _enlarge(image: Path, size: int, runner: StepRunner) -> Iterator[Outcome]:
    now = image.stat()
    if now.st_size == size:
        yield found(f"the image {quote(str(image))} has {format_size(size)}")
        return
    view = os.statvfs(image)
    free = view.f_bavail * view.f_frsize
    more = size - now.st_blocks * 512
    if more > free:
        yield warning(
            f"the image may take {format_size(more)} more, but only "
            f"{format_size(free)} are free around it: backups will fail when that "
            "disc is full, for pruning cannot see it coming"
        )
    yield runner.do(
        f"enlarge the image {quote(str(image))} from {format_size(now.st_size)} to "
        f"{format_size(size)}",
        partial(os.truncate, image, size),
    )


def _follow(device: Device, file: Path, runner: StepRunner) -> Iterator[Outcome]:
    """A loop device keeps the size that its file had when it was set up."""
    size = file.stat().st_size
    if size > devices.capacity(device.path):
        yield runner.do(
            f"let {quote(device.path)} be as large as {quote(str(file))}",
            partial(devices.follow_backing_file, device.path),
        )


def _use_all(
    volume: Volume, device: Device, target: int | None, runner: StepRunner
) -> Iterator[Outcome]:
    size = target or devices.capacity(device.path)
    name = quote(device.path)
    if size < device.size:
        raise BytebackError(
            f"{name} has {format_size(size)}, and the file system has "
            f"{format_size(device.size)} on it",
            hint="it was made smaller below btrfs, which loses data: make it as large "
            "as it was, then run 'btrfs scrub start'",
        )
    if size < device.size + SLACK:
        yield found(
            f"{name} is used whole, {format_size(size)}; a partition, logical volume "
            "or disc is enlarged by its own tools first"
        )
        return
    yield runner.do(
        f"use all of {name}: {format_size(size)}, it was {format_size(device.size)}",
        partial(devices.grow, volume.point, device.number),
    )
