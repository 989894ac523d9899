"""The mount table, from /proc/self/mountinfo alone: nothing mounted is looked at.

A file system whose server is dead or silent answers a stat(2) with an error, or never.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TABLE = Path("/proc/self/mountinfo")

# The kernel shows itself there: they hold no user's files.
KERNEL = frozenset(
    {
        *("proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "cpuset"),
        *("debugfs", "tracefs", "securityfs", "bpf", "configfs", "efivarfs", "mqueue"),
        *("fusectl", "pstore", "binfmt_misc", "hugetlbfs", "selinuxfs", "smackfs"),
        *("rpc_pipefs", "nfsd", "nsfs", "resctrl", "xenfs", "dlmfs", "ocfs2_dlmfs"),
        *("openpromfs", "spufs", "usbfs", "usbdevfs", "functionfs", "gadgetfs"),
        *("ibmasmfs", "oprofilefs", "pipefs", "sockfs", "bdev", "aafs", "devfs"),
    }
)
DISC = frozenset(
    {
        *("btrfs", "ext2", "ext3", "ext4", "reiserfs", "xfs", "nilfs2", "jfs"),
        *("reiser4", "zfs", "f2fs", "bcachefs", "rootfs"),
    }
)
# Other ones that this kernel itself answers for.
_LOCAL = frozenset(
    {
        *("tmpfs", "ramfs", "overlay", "squashfs", "erofs", "cramfs", "romfs"),
        *("iso9660", "udf", "vfat", "msdos", "exfat", "ntfs", "ntfs3", "hfs"),
        *("hfsplus", "ufs", "minix", "qnx6", "affs", "befs", "efs"),
    }
)
AUTOMOUNT = "autofs"

_OCTAL = re.compile(rb"\\([0-7]{3})")
_USER_ID = "user_id="
_CLONE_NEWNS = 0x20000
_MS_REC, _MS_SLAVE = 0x4000, 0x80000
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8


@dataclass(frozen=True)
class Mount:
    """One line of the table (proc_pid_mountinfo(5))."""

    number: int
    parent: int  # the mount that it is mounted on
    device: str  # MAJOR:MINOR of the file system
    root: str  # the directory of the file system that is seen here
    point: str  # bytes that are no UTF-8 as surrogates
    fs_type: str
    source: str
    super_options: frozenset[str] = frozenset()
    own_options: frozenset[str] = frozenset()  # of this mount alone

    @property
    def options(self) -> frozenset[str]:
        """All options, those of the file system and those of this mount."""
        return self.super_options | self.own_options

    @property
    def is_kernel(self) -> bool:
        """True if it holds no user's files."""
        return self.fs_type in KERNEL

    @property
    def is_disc(self) -> bool:
        """True if it is on a disc of this machine's own."""
        return self.fs_type in DISC

    @property
    def is_local(self) -> bool:
        """True if this kernel itself answers for it, so that it cannot hang."""
        return self.is_kernel or self.is_disc or self.fs_type in _LOCAL

    @property
    def is_of_user(self) -> bool:
        """True if an ordinary user's program answers for it (fuse(4): user_id=)."""
        owners = [o for o in self.super_options if o.startswith(_USER_ID)]
        is_fuse = self.fs_type.partition(".")[0] in ("fuse", "fuseblk")
        return is_fuse and owners != [f"{_USER_ID}0"]


def read(table: Path = TABLE) -> list[Mount]:
    """All mounts that a path of ours can lead to, the visible one of each point.

    A mount over a directory hides those below it, and of two on one point the later
    one hides the other. Sorted by mount point.
    """
    mounts = [
        mount for line in table.read_bytes().splitlines() for mount in _parse(line)
    ]
    return sorted(visible(mounts), key=lambda mount: mount.point.split("/"))


def visible(mounts: Sequence[Mount]) -> Iterator[Mount]:
    """Those that no other one hides."""
    by_number = {mount.number: mount for mount in mounts}
    # Of two on one point of one mount the later one counts.
    by_place = {(mount.parent, mount.point): mount for mount in mounts}

    def is_reachable(mount: Mount) -> bool:
        seen: set[int] = set()
        while mount.number not in seen and mount.parent != mount.number:
            seen.add(mount.number)
            under = by_number.get(mount.parent)
            for place in (mount.point, *parents(mount.point)):
                # The topmost mount may stand in the table as mounted on itself.
                if by_place.get((mount.parent, place)) not in (None, mount, under):
                    return False
            if under is None:
                break
            mount = under
        return True

    for mount in mounts:
        above = by_place.get((mount.number, mount.point))
        if above in (None, mount) and is_reachable(mount):
            yield mount


def parents(path: str) -> Iterator[str]:
    """The directories above an absolute path, the nearest first; none for the root."""
    while path != "/":
        path = path.rpartition("/")[0] or "/"
        yield path


def is_below(path: str, directory: str) -> bool:
    """True if ``path`` is ``directory`` itself or anywhere in it."""
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")


def at(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """Which of visible ``mounts`` holds an absolute path without links."""
    found = [mount for mount in mounts if is_below(path, mount.point)]
    return max(found, key=lambda mount: len(mount.point), default=None)


def holding(path: str | os.PathLike[str]) -> Mount | None:
    """The mount that holds ``path``, with all links resolved."""
    return at(os.path.realpath(path), read())


def hiding(points: Sequence[str]) -> Callable[[], None]:
    """For a child, before it becomes the program: take mounts out of its sight.

    What is below a mount point shows there then. Only root can do that, and not in
    every container; where it is impossible the child sees what it saw before. No
    server of a file system is asked anything, and other processes keep the mounts.
    """
    libc = ctypes.CDLL(None)
    encoded = [os.fsencode(point) for point in points]

    def apply() -> None:
        if not encoded or libc.unshare(_CLONE_NEWNS):
            return
        # What is mounted later shows up here, and nothing from here shows elsewhere.
        if libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None):
            return
        for point in encoded:
            libc.umount2(point, _MNT_DETACH | _UMOUNT_NOFOLLOW)

    return apply


def _parse(line: bytes) -> Iterator[Mount]:
    words = line.split(b" ")
    if b"-" not in words[6:]:
        return
    rest = words[words.index(b"-", 6) + 1 :]
    yield Mount(
        int(words[0]),
        int(words[1]),
        words[2].decode("ascii"),
        _text(words[3]),
        _text(words[4]),
        _text(rest[0]),
        _text(rest[1]) if len(rest) > 1 else "",
        frozenset(_text(rest[2]).split(",")) if len(rest) > 2 else frozenset(),
        frozenset(_text(words[5]).split(",")),
    )


def _text(word: bytes) -> str:
    plain = _OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), word)
    return plain.decode("utf-8", "surrogateescape")
