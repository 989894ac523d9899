"""Compares a snapshot of the first server with the one on the second, name by name.

Independent of byteback: the fake-super attributes are read here anew. A file of the
first server without one is its own user's, and must be so on the second, too.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

STAT = "user.rsync.%stat"
SEAL = "user.rsync.%byteback"
Facts = dict[bytes, tuple[object, ...]]


def facts_of(root: Path) -> Facts:
    """Everything that a client stored, by its path."""
    first_names: dict[int, bytes] = {}
    found: Facts = {}
    for path in sorted([root, *root.rglob("*")], key=os.fsencode):
        status = path.lstat()
        name = os.fsencode(path.relative_to(root))
        if not path.is_dir():
            first_names.setdefault(status.st_ino, name)
        names = set(os.listxattr(path, follow_symlinks=False)) - {STAT, SEAL}
        noted = f"{status.st_mode:o} 0,0 {status.st_uid}:{status.st_gid}"
        if STAT in os.listxattr(path, follow_symlinks=False):
            noted = os.getxattr(path, STAT, follow_symlinks=False).decode()
        content = b"" if path.is_dir() else path.read_bytes()
        found[name] = (
            noted,
            path.is_dir(),
            status.st_mtime_ns,
            hashlib.sha256(content).hexdigest(),
            first_names.get(status.st_ino),
            tuple(
                (x, os.getxattr(path, x, follow_symlinks=False)) for x in sorted(names)
            ),
        )
    return found


def differences(first: Path, second: Path) -> list[str]:
    """A line for each path that is not the same in both."""
    one, other = facts_of(first), facts_of(second)
    return [
        f"{name!r}: {one.get(name)} is {other.get(name)}"
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]
