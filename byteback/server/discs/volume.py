"""The store's file system as its devices make it up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from byteback.errors import StoreError, UsageError, quote
from byteback.model.device_room import Device
from byteback.model.free_space import Space
from byteback.model.size import format_size
from byteback.server.store import mounting, presence
from byteback.server.store.layout import Store
from byteback.system import mounts
from byteback.system.btrfs import devices, filesystem, space
from byteback.system.btrfs.identity import identify


@dataclass(frozen=True)
class Volume:
    """A mounted btrfs, as it was when it was looked at."""

    point: Path
    uuid: str
    devices: tuple[Device, ...]
    spaces: tuple[Space, ...]

    @property
    def name(self) -> str:
        """The file system as messages name it."""
        return f"the store's file system on {quote(str(self.point))}"

    def looked_at_again(self) -> Volume:
        """The same file system as it is now."""
        return look(self.point)

    def find(self, name: str) -> Device | None:
        """The device that ``name`` means: a path, or a number as btrfs has it."""
        for device in self.devices:
            is_path = bool(device.path) and is_same(device.path, name)
            if is_path or name == str(device.number) or name == device.path:
                return device
        return None

    def get(self, name: str) -> Device:
        """The same; raises UsageError if there is none."""
        found = self.find(name)
        if found is None:
            names = ", ".join(
                f"{one.number}: {quote(one.name)} ({format_size(one.size)})"
                for one in self.devices
            )
            raise UsageError(
                f"{quote(name)} is no device of {self.name}", hint=f"it has {names}"
            )
        return found


def open_volume(store: Store) -> Volume:
    """The file system of a store that is mounted for writing. Raises StoreError."""
    mounting.check(store)
    presence.check_writable(store)
    mounted = mounts.holding(store.root)
    if mounted is None or identify(store.root) is None:
        raise StoreError(f"{quote(str(store.root))} is on no btrfs")
    return look(Path(mounted.point))


def look(point: Path) -> Volume:
    """What is mounted at ``point`` now. Raises OSError."""
    found = identify(point)
    uuid = found.filesystem if found is not None else ""
    members = tuple(devices.read(point))
    return Volume(point, uuid, members, tuple(space.read_spaces(point)))


def is_same(one: str, other: str) -> bool:
    """True if two paths mean one block device."""
    return filesystem.is_same_device(one, other)
