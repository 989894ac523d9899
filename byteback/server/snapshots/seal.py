"""Tells a sealed snapshot (D29) from all others."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

from byteback.server.snapshots import renamed
from byteback.system.btrfs import subvolume

# HOST/NAME, on a top directory of root's, where only root can set it. rsync leaves such
# a "%" attribute out of what it sends. A trusted one it would see, for btrfs tells the
# names to every user, and fail because it cannot read the value.
ATTRIBUTE = "user.rsync.%byteback"


def is_roots(path: Path) -> bool:
    """True if a snapshot belongs to root, as each sealed one does, and not to us."""
    with contextlib.suppress(OSError):
        return path.lstat().st_uid == 0 and os.geteuid() != 0
    return False


def read_claim(fd: int, status: os.stat_result | None = None) -> str | None:
    """The HOST/NAME that root wrote on what is root's, with the client's name now."""
    if (status or os.fstat(fd)).st_uid != 0:
        return None
    try:
        claim = os.getxattr(fd, ATTRIBUTE).decode("utf-8", "replace")
        return renamed.resolve(fd, claim)
    except OSError as error:
        if error.errno in {errno.ENODATA, errno.EOPNOTSUPP}:
            return None
        raise


def forget_claim(fd: int) -> None:
    """Take the mark of a sealed snapshot from what is none. Raises OSError."""
    try:
        os.removexattr(fd, ATTRIBUTE)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise


def deletion_check(wanted: str | None) -> Callable[[int], bool]:
    """The check that root makes on an open subvolume immediately before deleting it.

    It may be sealed as ``wanted``, HOST/NAME, and as nothing else, or not at all; a
    writable copy of a sealed one, which was left unfinished, counts as not sealed.
    """

    def check(fd: int) -> bool:
        claim = read_claim(fd)
        if claim is None or claim == wanted:
            return True
        return wanted is None and not subvolume.is_read_only(fd)

    return check
