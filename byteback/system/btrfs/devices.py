"""The devices of a mounted btrfs: their sizes, and the operations that change them.

The operations are for root. The kernel does one of them at a time for each file system.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from byteback.model.device_room import Device
from byteback.system import process
from byteback.system.btrfs.identity import identify

SYSFS = Path("/sys/fs/btrfs")
BLOCK = Path("/sys/class/block")
NONE = "none"
ADD, REMOVE, REPLACE = "device add", "device remove", "device replace"
BALANCE, PAUSED = "balance", "balance paused"
TRIED_PLACES, TRIED_BYTES = 32, 1 << 20
REPLACEMENT = 0  # the number of the device that takes another one's place, meanwhile

# BTRFS_IOC_FS_INFO and _DEV_INFO of linux/btrfs.h.
_FS_INFO, _FS_INFO_SIZE = 0x8400941F, 1024
_DEV_INFO, _DEV_INFO_SIZE = 0xD000941E, 4096
_LAST_NUMBER = struct.Struct("=Q")
_DEVICE = struct.Struct("=Q16xQQ")  # number, bytes handed out, bytes in all
_PATH = slice(3072, 4096)

_REPLACED = re.compile(r"([0-9.]+)% done", re.ASCII)
_LEFT = re.compile(r"([0-9]+)% left", re.ASCII)
_ERRORS = re.compile(r"([0-9]+) uncorr\. read errs", re.ASCII)


class Replacement(NamedTuple):
    """The last replacement of a device, as btrfs remembers it."""

    is_finished: bool
    is_cancelled: bool
    percent: float
    unreadable: int  # blocks that no copy could be read of
    text: str


def read(path: Path) -> list[Device]:
    """The devices of the file system that holds ``path``, by number. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        buffer = bytearray(_FS_INFO_SIZE)
        fcntl.ioctl(fd, _FS_INFO, buffer)
        (last,) = _LAST_NUMBER.unpack_from(buffer)
        found = (_read_device(fd, number) for number in range(last + 1))
        return [device for device in found if device is not None]
    finally:
        os.close(fd)


def _read_device(fd: int, number: int) -> Device | None:
    buffer = bytearray(_DEV_INFO_SIZE)
    _DEVICE.pack_into(buffer, 0, number, 0, 0)
    try:
        fcntl.ioctl(fd, _DEV_INFO, buffer)
    except OSError:  # a number that was given up again
        return None
    _, used, size = _DEVICE.unpack_from(buffer)
    name = bytes(buffer[_PATH]).partition(b"\0")[0]
    return Device(number, os.fsdecode(name), size, used)


def capacity(device: str | Path) -> int:
    """Bytes of a block device. Raises OSError."""
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(fd, 0, os.SEEK_END)
    finally:
        os.close(fd)


def try_out(device: Path) -> None:
    """Write to places all over an unused device, and read them again.

    A disc that is broken, or smaller than it says, shows itself before the store is on
    it; btrfs counted no error of such a one while it copied. Raises OSError.
    """
    fd = os.open(device, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
    try:
        last = (os.lseek(fd, 0, os.SEEK_END) - TRIED_BYTES) // TRIED_BYTES
        places = [last * n // (TRIED_PLACES - 1) for n in range(TRIED_PLACES)]
        written = {place * TRIED_BYTES: os.urandom(TRIED_BYTES) for place in places}
        for offset, content in written.items():
            os.pwrite(fd, content, offset)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        for offset, content in written.items():
            if os.pread(fd, TRIED_BYTES, offset) != content:
                raise OSError(errno.EIO, "it does not keep what is written to it")
    finally:
        os.close(fd)


def is_read_only(device: Path) -> bool:
    """True if the kernel lets no program write to a block device."""
    try:
        name = Path(os.path.realpath(device)).name
        return (BLOCK / name / "ro").read_text(encoding="ascii").strip() == "1"
    except OSError:
        return False


def backing_file(device: str) -> Path | None:
    """The file behind a loop device; None for other devices."""
    try:
        name = Path(os.path.realpath(device)).name
        place = BLOCK / name / "loop" / "backing_file"
        return Path(os.fsdecode(place.read_bytes().rstrip(b"\n")))
    except OSError:
        return None


def follow_backing_file(device: str) -> None:
    """Let a loop device be as large as its file is by now. Raises ToolError."""
    process.run(["losetup", "--set-capacity", device])


def exclusive_operation(path: Path) -> str:
    """What the kernel is doing with the devices now, or NONE."""
    found = identify(path)
    try:
        assert found is not None  # noqa: S101 # the caller knows it for a btrfs
        place = SYSFS / found.filesystem / "exclusive_operation"
        return place.read_text(encoding="ascii").strip()
    except OSError:  # before Linux 5.10
        return NONE


def grow(path: Path, number: int) -> None:
    """Use all of one device. Raises ToolError."""
    resize = ["btrfs", "filesystem", "resize", "--enqueue", f"{number}:max"]
    process.run([*resize, path])


def add(path: Path, device: Path, *, force: bool) -> None:
    """Make an unused device part of the file system. Raises ToolError."""
    flags = ["-f"] if force else []
    process.run(["btrfs", "device", "add", "--enqueue", *flags, "--", device, path])


def replace_argv(
    path: Path, old: Device, new: Path, *, force: bool, avoids_old: bool
) -> list[str]:
    """The program that copies ``old`` to ``new``, and ends when that is done.

    With ``avoids_old`` what has another copy is not read from ``old``.
    """
    flags = ["-f"] * force + ["-r"] * avoids_old
    start = ["btrfs", "replace", "start", "-B", "--enqueue", *flags]
    return [*start, str(old.number), str(new), str(path)]


def remove_argv(path: Path, device: Device) -> list[str]:
    """The program that moves what is on a device to the others, and takes it away."""
    remove = ["btrfs", "device", "remove", "--enqueue"]
    return [*remove, str(device.number), str(path)]


def balance_argv(path: Path, *filters: str) -> list[str]:
    """The program that writes anew what the filters choose, all of it without any."""
    chosen = filters or ("--full-balance",)
    return ["btrfs", "balance", "start", "--enqueue", "-f", *chosen, str(path)]


def read_replacement(path: Path) -> Replacement:
    """How the last replacement went, or goes. Raises ToolError."""
    shown = process.run(["btrfs", "replace", "status", "-1", path])
    return parse_replacement(shown.text)


def parse_replacement(text: str) -> Replacement:
    """Read what ``btrfs replace status`` prints."""
    running, errors = _REPLACED.search(text), _ERRORS.search(text)
    return Replacement(
        "finished on" in text,
        "canceled on" in text,
        float(running[1]) if running else 0.0,
        int(errors[1]) if errors else 0,
        text.strip(),
    )


def balance_percent(path: Path) -> float:
    """How much of a balance is done. Raises ToolError."""
    shown = process.run(["btrfs", "balance", "status", path], tolerate=(0, 1))
    left = _LEFT.search(shown.text)
    return 100.0 - int(left[1]) if left else 0.0


def device_errors(path: Path, device: Device) -> Sequence[str]:
    """What btrfs has counted against one device. Raises ToolError."""
    from byteback.system.btrfs import health

    found = health.device_errors(path)
    return [line for line in found if line.startswith(f"{device.path}:")]
