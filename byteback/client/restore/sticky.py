"""Finds the directories whose ACLs a restore's rsync sets only in part.

Before a directory gets its sticky bit, rsync leaves its ACL without what group and
others may, so that no user can use it too early. It adds that with the mode, which for
the owning group sets no more than the ACL's mask (rsync's acls.c, change_sacl_perms).
Once the bit is there a second transfer sets all of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable
from pathlib import Path

from byteback.client.backup import own_files

ACL = "system.posix_acl_access"


def find(top: Path, names: Iterable[str], foreign: Collection[str]) -> list[str]:
    """Those at, below and above ``names`` in ``top``, as rsync is asked for them.

    ``foreign`` is own_files.walk's.
    """
    above: dict[str, None] = {}
    sources = []
    for name in names:
        path = os.path.normpath(top / name)
        if stat.S_ISDIR(_mode(path)):
            sources.append(path)
        while path not in (str(top), "/"):
            path = path.rpartition("/")[0] or "/"
            above[path] = None
    above.pop(str(top), None)  # which belongs to the user
    below = (directory for directory, _ in own_files.walk(sources, foreign))
    found = [p for p in (*above, *below) if _mode(p) & stat.S_ISVTX and _has_acl(p)]
    return ["./" if path == str(top) else os.path.relpath(path, top) for path in found]


def _mode(path: str) -> int:
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0


def _has_acl(path: str) -> bool:
    return ACL in own_files.attributes(path)
