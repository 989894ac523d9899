"""The store's line in fstab, which must not name a device that has gone."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

from byteback.errors import UsageError, quote
from byteback.model.device_room import Device
from byteback.server.discs.volume import Volume, is_same
from byteback.server.setup.steps import Outcome, StepRunner, warning
from byteback.server.setup.store import reload_systemd
from byteback.system import fstab
from byteback.system.btrfs import devices, filesystem

# By these any device of a file system will do; other words mean one device.
LASTING = ("UUID", "LABEL")


def check(volume: Volume, old: Device) -> None:
    """Raise UsageError if a line that is not ours finds the store by ``old`` alone."""
    entry = fstab.find(str(volume.point))
    rest = [device for device in volume.devices if device != old]
    if entry is not None and not entry.is_ours and not _leads_to(entry, rest):
        raise UsageError(
            f"the line for {quote(str(volume.point))} in {quote(str(fstab.PATH))} "
            f"names {quote(entry.spec)}, and is not byteback's own",
            hint=f"write UUID={volume.uuid} there first",
        )


def provide(
    volume: Volume, members: Collection[Device], runner: StepRunner
) -> Iterator[Outcome]:
    """See to it that the line finds the store, whose devices are ``members``."""
    entry = fstab.find(str(volume.point))
    if entry is None or _leads_to(entry, members):
        return
    spec = f"UUID={volume.uuid}"
    what = f"{spec} in place of {quote(entry.spec)} in {quote(str(fstab.PATH))}"
    if not entry.is_ours:
        yield warning(f"write {what}: that line is not byteback's own")
        return
    yield runner.do(f"write {what}", partial(_change, entry, spec))


def image_of(volume: Volume) -> Path | None:
    """The image that the store is in, by its line in fstab."""
    entry = fstab.find(str(volume.point))
    if entry is None or "loop" not in entry.options:
        return None
    return Path(entry.spec)


def _leads_to(entry: fstab.Entry, members: Collection[Device]) -> bool:
    if entry.spec.partition("=")[0] in LASTING:
        return True
    device = filesystem.resolve_spec(entry.spec)
    for member in members:
        if not member.path:
            continue
        behind = devices.backing_file(member.path)
        if is_same(device, member.path) or (
            behind is not None and os.path.realpath(device) == os.path.realpath(behind)
        ):
            return True
    return False


def _change(entry: fstab.Entry, spec: str) -> None:
    options = [option for option in entry.options if option != "loop"]
    fstab.change(entry, spec, options)
    reload_systemd()
