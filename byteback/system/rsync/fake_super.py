"""Reads the attribute in which rsync --fake-super keeps owner, mode and device."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

ATTRIBUTE = "user.rsync.%stat"
ACLS = ("user.rsync.%aacl", "user.rsync.%dacl")  # for a file, and for what comes in it
MAX_ID = 2**32 - 1

# OCTALMODE MAJOR,MINOR UID:GID; see set_stat_xattr in rsync's xattrs.c.
_FORM = re.compile(rb"([0-7]{1,6}) (\d{1,10}),(\d{1,10}) (\d{1,10}):(\d{1,10})\0?")
# As rsync itself reads it: sscanf(3) with "%o %d,%d %d:%d", to the first NUL.
_READABLE = re.compile(
    rb"\s*[-+]?[0-7]++\s*[-+]?\d++,\s*[-+]?\d++\s*[-+]?\d++:\s*[-+]?\d[^\0]*(\0.*)?",
    re.DOTALL,
)
LONGEST = 255  # bytes that rsync has room for


class FakeStat(NamedTuple):
    """A file's true owner and mode. ``device`` means something for devices only."""

    mode: int  # the whole of st_mode
    device: tuple[int, int]  # major, minor
    uid: int
    gid: int


def read_fake_stat(file: int | Path) -> FakeStat | None:
    """Read rsync's note about an open file, or about a path without following a link.

    None where there is nothing: rsync leaves the attribute out when a file's own owner
    and mode are right already, so that this is nothing out of the ordinary. The same
    for what no rsync wrote, and for a file that is gone.
    """
    import xattr

    try:
        if isinstance(file, int):
            value = xattr.getxattr(file, ATTRIBUTE)
        else:
            value = xattr.getxattr(str(file), ATTRIBUTE, symlink=True)
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            return None
        raise
    return parse_fake_stat(value)


def note_status(fd: int, status: os.stat_result) -> None:
    """Note what an open directory is, where rsync has noted nothing.

    As rsync would have, had its owner and mode not been right already: restores go on
    showing them when the directory itself gets others. Raises OSError.
    """
    note = f"{status.st_mode:o} 0,0 {status.st_uid}:{status.st_gid}"
    with contextlib.suppress(FileExistsError):
        os.setxattr(fd, ATTRIBUTE, note.encode("ascii"), os.XATTR_CREATE)


def load() -> None:
    """Load what reading attributes needs, for a process about to confine itself."""
    import xattr  # noqa: F401 # that is all


def parse_fake_stat(value: bytes) -> FakeStat | None:
    """Read the attribute's value; None if it is not of rsync's form."""
    found = _FORM.fullmatch(value)
    if found is None:
        return None
    mode = int(found[1], 8)
    major, minor, uid, gid = (int(number) for number in found.groups()[1:])
    if max(major, minor, uid, gid) > MAX_ID or stat.S_IFMT(mode) not in _TYPES:
        return None
    return FakeStat(mode, (major, minor), uid, gid)


def is_readable(value: bytes) -> bool:
    """True if rsync can read the attribute's value: one that it cannot ends it."""
    return len(value) <= LONGEST and _READABLE.fullmatch(value) is not None


_TYPES = frozenset(
    {
        *(stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR),
        *(stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK),
    }
)
# EPERM: devices, fifos and links cannot have attributes of users (xattr(7)).
_NOTHING_THERE = frozenset(
    {errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM, errno.ENOENT, errno.EACCES}
)
