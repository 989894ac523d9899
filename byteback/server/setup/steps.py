"""Steps of set-up: each looks first, then acts unless only asked to tell."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from byteback.errors import BytebackError, UsageError, quote
from byteback.model.size import parse_size

# Less than this and btrfs has no room for both copies of its own metadata.
SMALLEST_IMAGE = 256 * 1024**2
THREE_WAYS = (
    "say where the store is to be: '--image /var/lib/byteback.img --size 20G' "
    "(needs no disc of its own), '--device /dev/DISC' (a whole disc or partition), "
    "or '--directory DIR' (on a btrfs that is mounted already)"
)


class Kind(StrEnum):
    """The result of a step."""

    DONE = "done"
    FOUND = "found"  # it was so already
    WOULD = "would"  # a dry run changes nothing
    WARNING = "warning"
    NEXT = "next"  # for the administrator to do


@dataclass(frozen=True)
class Outcome:
    """One line for the administrator."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class StepRunner:
    """Carries steps out, or in a dry run only tells them."""

    dry_run: bool = False

    def do(self, what: str, action: Callable[[], object]) -> Outcome:
        """Act, and say so. An OSError becomes a BytebackError that names the step."""
        if self.dry_run:
            return Outcome(Kind.WOULD, what)
        try:
            action()
        except OSError as error:
            where = f" ({quote(str(error.filename))})" if error.filename else ""
            raise BytebackError(f"cannot {what}: {error.strerror}{where}") from None
        return Outcome(Kind.DONE, what)


def found(text: str) -> Outcome:
    """Nothing to do."""
    return Outcome(Kind.FOUND, text)


def warning(text: str) -> Outcome:
    """Went on, but the administrator must look."""
    return Outcome(Kind.WARNING, text)


@dataclass(frozen=True)
class Device:
    """A store on a block device of its own."""

    path: Path
    may_format: bool = False
    by_hand: bool = False  # an administrator, or a cluster, mounts it


@dataclass(frozen=True)
class Image:
    """A store in a file with a file system inside; ``size`` in bytes if it is new."""

    path: Path
    size: int | None = None
    by_hand: bool = False


@dataclass(frozen=True)
class Directory:
    """A store in a directory of a btrfs that is mounted already."""

    path: Path


Volume = Device | Image
Choice = Device | Image | Directory


def choose_store(
    *,
    device: Path | None = None,
    may_format: bool = False,
    directory: Path | None = None,
    image: Path | None = None,
    size: str | None = None,
    by_hand: bool = False,
) -> Choice | None:
    """The store that a command line names, or None if it names none.

    Raises UsageError for more than one, or for options that do not go together.
    """
    if sum(way is not None for way in (device, directory, image)) > 1:
        raise UsageError("more than one store is named", hint=THREE_WAYS)
    if may_format and device is None:
        raise UsageError("--format goes with --device only")
    if size is not None and image is None:
        raise UsageError("--size goes with --image and --grow only")
    if by_hand and device is None and image is None:
        raise UsageError(
            "--mount-by-hand goes with --device and --image only",
            hint="elsewhere, give the store's line in /etc/fstab the option noauto",
        )
    if device is not None:
        return Device(device.absolute(), may_format, by_hand)
    if directory is not None:
        return Directory(directory.absolute())
    if image is not None:
        # Links followed: the kernel and fstab shall know the image by one name.
        return Image(Path(os.path.realpath(image)), image_size(size), by_hand)
    return None


def image_size(text: str | None) -> int | None:
    """Bytes of an image, as the command line says; raises UsageError for too few."""
    if text is None:
        return None
    size = parse_size(text)
    if size < SMALLEST_IMAGE:
        raise UsageError(
            f"{quote(text)} is too small for a store",
            hint="btrfs keeps its own metadata twice and needs at least 256M",
        )
    return size
