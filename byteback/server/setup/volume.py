"""Makes the file system of a new store: on a device, or in an image file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from byteback.errors import BytebackError, UsageError, quote
from byteback.model.size import format_size
from byteback.server.setup.steps import (
    Device,
    Image,
    Outcome,
    StepRunner,
    Volume,
    found,
    warning,
)
from byteback.server.store import mounting
from byteback.system import block_device, fstab
from byteback.system.block_device import Network
from byteback.system.btrfs import filesystem

BY_HAND = mounting.BY_HAND
DISCARD = ("discard=async",)
OPTIONS = ("noatime", "compress=zstd", "user_subvol_rm_allowed")


def check_volume(volume: Volume) -> None:
    """Refuse, before anything is changed, what must not be made into a store."""
    if isinstance(volume, Device):
        _check_device(volume)
    else:
        _check_image(volume)


def make_volume(volume: Volume, runner: StepRunner) -> Iterator[Outcome]:
    """See to it that the volume holds a btrfs. ``check_volume`` has passed."""
    if isinstance(volume, Device):
        yield from _make_on_device(volume, runner)
    else:
        yield from _make_image(volume, runner)


def is_on(volume: Volume, device: str) -> bool:
    """True if a mounted ``device`` is the volume's, or the loop that stands for it."""
    if isinstance(volume, Device):
        return filesystem.is_same_device(volume.path, device)
    return volume.path.exists() and Path(device) in filesystem.loops_of(volume.path)


def is_for(volume: Volume, entry: fstab.Entry) -> bool:
    """True if an fstab entry mounts this volume."""
    if isinstance(volume, Device):
        return filesystem.is_same_device(
            filesystem.resolve_spec(entry.spec), volume.path
        )
    return os.path.realpath(entry.spec) == os.path.realpath(volume.path)


def mount_options(volume: Volume) -> tuple[str, ...]:
    """The mount options of now."""
    if isinstance(volume, Image):
        return ("loop", *OPTIONS)
    # Kernels before 6.2 do not by themselves; an image in a pool gives room back by it.
    return (*OPTIONS, *DISCARD) if block_device.discards(volume.path) else OPTIONS


def boot_options(volume: Volume) -> tuple[str, ...]:
    """What else belongs into fstab, for systemd and for whoever mounts at boot."""
    network = None
    if isinstance(volume, Device):
        network = block_device.network_of(volume.path)
    return (*needs_of_network(network), *((BY_HAND,) if volume.by_hand else ()))


def needs_of_network(network: Network | None) -> tuple[str, ...]:
    """The options of a disc that comes over the network.

    Without them it counts as local: it is mounted before the network is there, and
    unmounted after it has gone (systemd.mount(5)).
    """
    if network is None:
        return ()
    # The service of ceph-common that maps what /etc/ceph/rbdmap names.
    mapped = ("x-systemd.requires=rbdmap.service",) if network is Network.RBD else ()
    return ("_netdev", *mapped)


def fstab_entry(volume: Volume, mount_point: Path) -> fstab.Entry:
    """The mount options at boot: a lost disc must not stop the machine (nofail).

    A device goes by its UUID, for names like /dev/sdb change from boot to boot.
    """
    spec = str(volume.path)
    if isinstance(volume, Device):
        own = filesystem.find_btrfs(filesystem.probe(volume.path))
        if own is None:
            raise BytebackError(f"there is no btrfs on {quote(spec)} any more")
        spec = f"UUID={own.uuid}"
    return fstab.Entry(
        spec,
        str(mount_point),
        "btrfs",
        (*mount_options(volume), "nofail", *boot_options(volume)),
    )


def needs_format(device: Device) -> bool:
    """True if the device does not hold our btrfs yet."""
    own = filesystem.find_btrfs(filesystem.probe(device.path))
    return own is None or own.label != filesystem.LABEL


def _check_device(device: Device) -> None:
    name = quote(str(device.path))
    if not filesystem.is_block_device(device.path):
        raise UsageError(f"{name} is no block device", hint="'lsblk' lists them")
    if filesystem.is_busy(device.path):
        raise UsageError(
            f"{name} is in use: mounted, or part of a RAID, LVM or swap",
            hint="'lsblk' shows by what; free it first, or choose another device",
        )
    signatures = filesystem.probe(device.path)
    if not signatures or device.may_format or not needs_format(device):
        return
    kinds = ", ".join(sorted({signature.kind for signature in signatures}))
    hint = "--format makes a new file system: everything on the device is lost"
    if kinds == "btrfs":
        hint = f"to keep it, mount it and use --directory; {hint}"
    raise UsageError(f"{name} is not empty, it holds: {kinds}", hint=hint)


def _make_on_device(device: Device, runner: StepRunner) -> Iterator[Outcome]:
    name = quote(str(device.path))
    if block_device.may_be_mapped_twice(device.path):
        yield warning(
            f"{name} is mapped without 'exclusive': another machine could map and "
            "mount it at the same time, which destroys the store; unmap it, map it "
            "again with '-o exclusive', and write that into /etc/ceph/rbdmap"
        )
    if not needs_format(device):
        kept = ", which --format does not touch" if device.may_format else ""
        yield found(f"{name} holds a btrfs labelled 'byteback'{kept}")
        return
    yield runner.do(
        f"make a btrfs on {name}",
        lambda: filesystem.make_btrfs(device.path, force=device.may_format),
    )


def _check_image(image: Image) -> None:
    name = quote(str(image.path))
    if not image.path.parent.is_dir():
        raise UsageError(f"there is no directory for {name}", hint="make it first")
    if not image.path.exists():
        if image.size is None:
            raise UsageError(
                f"{name} is to be made, but how large?",
                hint="add --size, for instance --size 20G",
            )
        return
    if not image.path.is_file():
        raise UsageError(f"{name} is no regular file", hint="choose another name")
    if filesystem.find_btrfs(filesystem.probe(image.path)) is None:
        raise UsageError(
            f"{name} exists and is no image of a btrfs",
            hint="choose another name for the image, or remove that file",
        )
    for loop in filesystem.loops_of(image.path):
        if filesystem.is_busy(loop):
            raise UsageError(
                f"{name} is mounted elsewhere, through {quote(str(loop))}",
                hint=f"'findmnt {loop}' shows where; unmount it first",
            )


def _make_image(image: Image, runner: StepRunner) -> Iterator[Outcome]:
    name = quote(str(image.path))
    if image.path.exists():
        size = image.path.stat().st_size
        other = "; its size stays" if image.size not in {None, size} else ""
        yield found(f"{name} is an image of a btrfs, {format_size(size)}{other}")
        return
    size = image.size or 0
    space = os.statvfs(image.path.parent)
    free = space.f_bavail * space.f_frsize
    if size > free:
        yield warning(
            f"the image may grow to {format_size(size)}, but only {format_size(free)} "
            f"are free around {name}: backups will fail when that disc is full, "
            "for pruning cannot see it coming; make room, or use a smaller image"
        )
    yield runner.do(
        f"make the image {name}, {format_size(size)} (it takes space as it fills)",
        lambda: filesystem.make_image(image.path, size),
    )
