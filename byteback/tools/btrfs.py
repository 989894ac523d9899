"""btrfs subvolumes, by way of btrfs-progs.

All of this works for the unprivileged owner of a subvolume when the file system is
mounted with ``user_subvol_rm_allowed`` (kernel 4.18 or later).
"""

from __future__ import annotations

import stat
from pathlib import Path

from byteback.errors import ToolError, quote
from byteback.tools import process

SUBVOLUME_INODE = 256  # the root directory of each subvolume, see btrfs(5)


def is_subvolume(path: Path) -> bool:
    """Whether ``path`` itself (never a link to it) is the root of a subvolume."""
    try:
        status = path.lstat()
        parent = path.parent.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_ino == SUBVOLUME_INODE
        and status.st_dev != parent.st_dev
    )


def create_subvolume(path: Path) -> None:
    """Make an empty subvolume at ``path``, whose parent must be on btrfs."""
    process.run(["btrfs", "subvolume", "create", "--", path])


def take_snapshot(source: Path, target: Path, *, read_only: bool = True) -> None:
    """Snapshot the subvolume ``source`` as ``target``, which must not exist.

    btrfs would put the snapshot *inside* an existing directory, so that is refused.
    The caller holds the lock that keeps others from making ``target`` meanwhile.
    """
    if target.exists() or target.is_symlink():
        raise ToolError(f"cannot make snapshot {quote(str(target))}: it exists already")
    flags = ["-r"] if read_only else []
    process.run(["btrfs", "subvolume", "snapshot", *flags, "--", source, target])


def is_read_only(path: Path) -> bool:
    """Whether the subvolume's read-only flag is set."""
    shown = process.run(["btrfs", "property", "get", "-t", "subvol", path, "ro"])
    return shown.text.strip() == "ro=true"


def set_read_only(path: Path, read_only: bool) -> None:
    """Set or clear the subvolume's read-only flag; its owner may do both."""
    value = "true" if read_only else "false"
    process.run(["btrfs", "property", "set", "-t", "subvol", path, "ro", value])


def delete_subvolume(path: Path) -> None:
    """Delete a subvolume and wait until the deletion itself is on disc.

    The read-only flag is cleared first, for the owner could not delete it otherwise.
    Its space comes back later, when the kernel's cleaner has been through it; without
    ``--commit-after`` it would not even begin before the next periodic commit, 30 s.
    btrfs prints its success before it knows of a failure: only the status counts.
    """
    if is_read_only(path):
        set_read_only(path, False)
    process.run(["btrfs", "subvolume", "delete", "--commit-after", "--", path])


def sync(path: Path) -> None:
    """Commit the file system that holds ``path``; open to any user."""
    process.run(["btrfs", "filesystem", "sync", path])
