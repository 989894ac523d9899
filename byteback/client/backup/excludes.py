"""What a backup leaves out by itself: other file systems, caches, its own store."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from pathlib import Path

from byteback.model.rsync_filter import contents_rule, file_rule
from byteback.system.host import Mount

LOCAL_DISC_TYPES = frozenset(
    {
        *("btrfs", "ext2", "ext3", "ext4", "reiserfs", "xfs", "nilfs2", "jfs"),
        *("reiser4", "zfs", "f2fs", "bcachefs", "rootfs"),
    }
)
# Left out where they exist: what is made anew, or (MySQL) useless when copied live.
PATHS = (
    "/swap.file",
    "/tmp",
    "/var/backups/localhost",
    "/var/lib/php5",
    "/var/tmp",
    "/var/lib/mysql",
)
# Packages, but not the directories, which are a package's own (dpkg --verify).
APT_CACHE = "/var/cache/apt/archives"
APT_RULES = (f"{APT_CACHE}/*.*", f"{APT_CACHE}/partial/*")
STORE_USER = "byteback"


def automatic_excludes(mounts: Sequence[Mount]) -> list[str]:
    """rsync exclude patterns for this machine, in a stable order.

    Only what is inside a directory is left out; the directory itself is kept.
    """
    excluded = dict.fromkeys(foreign_mount_points(mounts))
    excluded |= dict.fromkeys(path for path in PATHS if os.path.lexists(path))
    store = _own_store()
    if store is not None:
        excluded[store] = None
    rules = [_rule(path) for path in excluded]
    return sorted([*rules, *(APT_RULES if Path(APT_CACHE).is_dir() else ())])


def foreign_mount_points(mounts: Sequence[Mount]) -> list[str]:
    """Mount points of everything that is not on a disc of this machine's own.

    Of several mounts on one point the last is what can be seen there. An overlay
    counts as a disc where it is the root, as on live systems and in containers.
    """
    visible = _visible(mounts)
    return [point for point, is_local in visible.items() if not is_local]


def _visible(mounts: Sequence[Mount]) -> dict[str, bool]:
    """Each mount point, and whether what can be seen there is a disc of our own."""
    return {
        mount.mount_point: mount.mount_point == "/" or mount.fs_type in LOCAL_DISC_TYPES
        for mount in mounts
    }


def _rule(path: str) -> str:
    # A single file can be a mount point too, /etc/resolv.conf in containers say.
    is_directory = Path(path).is_dir() and not Path(path).is_symlink()
    return contents_rule(path) if is_directory else file_rule(path)


def _own_store() -> str | None:
    """The store's directory if this machine is a backup server too.

    Backed up to itself it would grow for ever.
    """
    try:
        home = pwd.getpwnam(STORE_USER).pw_dir
    except KeyError:
        return None
    return home if Path(home, ".byteback").is_dir() else None
