"""File systems on devices and in image files, by way of util-linux and mkfs.btrfs."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from byteback.errors import ToolError, quote
from byteback.system import files, process

LABEL = "byteback"


@dataclass(frozen=True)
class Signature:
    """The signature on a device or file: a file system, partitions, LVM …"""

    kind: str  # as libblkid names it: "btrfs", "ext4", "gpt", "LVM2_member", "swap"
    uuid: str
    label: str


def probe(path: Path) -> list[Signature]:
    """All signatures on a device or image file. Reads only."""
    shown = process.run(["wipefs", "--no-act", "--json", "--", path]).text
    found = json.loads(shown)["signatures"] if shown.strip() else []
    return [
        Signature(each["type"], each.get("uuid") or "", each.get("label") or "")
        for each in found
    ]


def find_btrfs(signatures: Sequence[Signature]) -> Signature | None:
    """The btrfs signature, if there is nothing else beside it."""
    others = [found for found in signatures if found.kind != "btrfs"]
    return signatures[0] if signatures and not others else None


def is_block_device(path: Path) -> bool:
    """True if ``path`` is, or is a link to, a block device."""
    return path.exists() and stat.S_ISBLK(path.stat().st_mode)


def is_busy(device: Path) -> bool:
    """True if the kernel has the block device in use: mounted, swap, RAID, LVM.

    open(2): O_EXCL without O_CREAT on a block device fails with EBUSY then, in
    whichever mount namespace the mount is. Raises OSError for other failures.
    """
    try:
        fd = os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno == 16:  # EBUSY
            return True
        raise
    os.close(fd)
    return False


def is_same_device(one: Path | str, other: Path | str) -> bool:
    """True if two names mean one block device."""
    try:
        return os.stat(one).st_rdev == os.stat(other).st_rdev != 0  # noqa: PTH116
    except OSError:
        return False


def resolve_spec(spec: str) -> str:
    """The device of an fstab ``UUID=``, ``LABEL=`` … spec; others as they are."""
    tag, separator, _ = spec.partition("=")
    if not separator or not tag.isupper():
        return spec
    found = process.run(["findfs", spec], tolerate=(0, 1, 2))
    return found.text.strip() if found.status == 0 else spec


def loops_of(image: Path) -> list[Path]:
    """The loop devices that stand for an image file at the moment."""
    shown = process.run(
        ["losetup", "--noheadings", "--output", "NAME", "--associated", image]
    )
    return [Path(line.strip()) for line in shown.text.splitlines() if line.strip()]


def make_btrfs(path: Path, *, force: bool = False) -> None:
    """Put an empty btrfs labelled ``byteback`` on a device or image file.

    With ``force`` whatever is there is lost. mkfs.btrfs writes the signature last,
    so that an interrupted run leaves none.
    """
    flags = ["--force"] if force else []
    process.run(["mkfs.btrfs", "--quiet", "--label", LABEL, *flags, path])


def make_image(path: Path, size: int) -> None:
    """Make a sparse file of ``size`` bytes at ``path`` with an empty btrfs inside.

    It appears under its name only when it is whole. Raises OSError and ToolError.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    with contextlib.suppress(FileNotFoundError):
        unfinished.unlink()
    try:
        with unfinished.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            _stop_copying_on_write(unfinished)
            file.truncate(size)
        make_btrfs(unfinished)
        _sync_file(unfinished)
        # link, not rename: it never replaces a file that came up meanwhile.
        path.hardlink_to(unfinished)
    finally:
        unfinished.unlink(missing_ok=True)
    files.sync_directory(path.parent)


def mount(source: str | Path, mount_point: Path, options: Sequence[str]) -> None:
    """Mount a btrfs. Raises ToolError with a hint where btrfs or loops are missing."""
    try:
        process.run(
            ["mount", "-t", "btrfs", "-o", ",".join(options), "--", source, mount_point]
        )
    except ToolError as error:
        raise ToolError(
            f"cannot mount {quote(str(source))} on {quote(str(mount_point))}",
            hint=_mount_hint(error.details, loop="loop" in options),
            details=error.details,
            status=error.status,
        ) from None


def mount_from_fstab(mount_point: Path, *, timeout_s: float | None = None) -> None:
    """Mount what /etc/fstab names for a mount point. Raises ToolError."""
    process.run(["mount", "--", mount_point], timeout_s=timeout_s)


def remount(mount_point: Path, options: Sequence[str]) -> None:
    """Add options to a mount that is there; the others stay in force."""
    process.run(
        ["mount", "-o", ",".join(("remount", *options)), "--", mount_point],
    )


def _mount_hint(details: Sequence[str], *, loop: bool) -> str | None:
    text = " ".join(details)
    if "unknown filesystem type" in text:
        return "this kernel has no btrfs: try 'modprobe btrfs'"
    if loop and "loop" in text:
        return (
            "this machine cannot make loop devices (a container?): "
            "try 'modprobe loop', or give a disc with --device"
        )
    return "the kernel's log may say more: dmesg"


def _stop_copying_on_write(path: Path) -> None:
    """Switch off copy on write for an image on btrfs: twice would shred it."""
    if process.has_program("chattr"):
        process.run(["chattr", "+C", path], tolerate=(0, 1))


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
