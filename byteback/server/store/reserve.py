"""A little room kept back in the store, given up when even a deletion finds none.

What a deletion needs on btrfs is metadata, never room for data. So the reserve is one
empty file whose attributes fill leaves of metadata (D18).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from byteback.server.store.layout import Store
from byteback.system import files
from byteback.system.btrfs import space
from byteback.system.diary import Diary

logger = Diary(__name__)

RESERVE_BYTES = 8 << 20  # twice that where metadata has copies
MAX_SHARE = 64  # of a small store it is one part in so many
LEAF_OVERHEAD = 1400  # bytes of a leaf beside one value that nearly fills it


def path(store: Store) -> Path:
    """The file that is the reserve."""
    return store.state / "reserve"


def is_there(store: Store) -> bool:
    """True if there is something to give up."""
    return path(store).exists()


def provide(store: Store) -> bool:
    """Make the reserve if it is missing, whole or not at all; whether it is there."""
    if is_there(store):
        return True
    new = path(store).with_suffix(".new")
    try:
        leaf = space.read_node_size(store.root)
        view = os.statvfs(store.root)
        size = min(RESERVE_BYTES, view.f_blocks * view.f_frsize // MAX_SHARE)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(new, flags, 0o600)
        try:
            for number in range(size // leaf):
                # Compression does not reach attributes: zeros will do.
                os.setxattr(fd, f"user.byteback.{number}", bytes(leaf - LEAF_OVERHEAD))
        finally:
            os.close(fd)
        new.rename(path(store))
    except OSError as error:
        logger.debug("cannot keep a reserve: %s", error.strerror)
        with contextlib.suppress(OSError):
            new.unlink()
        return False
    return True


def release(store: Store) -> bool:
    """Give the reserve up, to be made again when there is room; whether there was one.

    Its room can be used when the next commit is through.
    """
    try:
        path(store).unlink()
        with contextlib.suppress(OSError):
            files.sync_directory(store.state)
    except OSError:
        return False
    logger.warning("the disc is full: gave up the reserve of the store")
    return True
