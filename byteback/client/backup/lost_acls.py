"""Finds the ACLs that the server's rsync has lost, for a second try to bring them.

With --fake-super rsync keeps an ACL in an attribute of its own. Whenever it sets the
other attributes of a file, it takes the ACL's for one that the source does not have and
removes it (rsync 3.1 to 3.5, rsync_xal_set). Where it has written the ACL before, or
found it right, it does not write it again: a new directory, a file whose attributes
have changed, and each file with new contents under its old name. The next transfer
sends it, for that one finds it missing, and the attributes in place.

rsync's own filter rules for attributes do not help: to the server's rsync a client's
security.selinux and its own disc's are one name.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable

from byteback.client.backup import own_files

ACL = "system.posix_acl_"
SYSTEM = "system."  # rsync sends no other attribute of this kind

# A first backup sends ACLs once more of plain files that have changed so late. Only
# where the server has an older copy already can it have lost one of them.
LATELY_S = 30 * 86400
_NEW = "+" * 9
_ATTRIBUTES = 10  # where an "x" tells that they differ: rsync(1), --itemize-changes


class LostAcls:
    """Names that are to be sent again, from what rsync prints as it sends.

    Mount points in ``foreign`` are not looked at: what is mounted there may never
    answer, and rsync did not see it either.
    """

    def __init__(self, foreign: Collection[str] = ()) -> None:
        self.names: list[str] = []
        self._foreign = foreign

    def take(self, line: str) -> None:
        """Read one line of rsync's standard output, of the format push.SENT_FORMAT."""
        sent = own_files.parse_sent(line)
        if sent is None:
            return
        flags, name = sent
        # The attributes that have changed may have been the last ones.
        path = f"/{name}".removesuffix("/")
        if path in self._foreign:
            return
        if flags[0] == "c" and flags[1] not in "fL":
            is_lost = _has_both(path)
        else:
            is_written = flags[_ATTRIBUTES] == "x" or (
                flags.startswith("<f") and not flags.endswith(_NEW)
            )
            is_lost = is_written and _holds_acl(own_files.attributes(path))
        if is_lost:
            self.names.append(name)


def _has_both(path: str) -> bool:
    """True if a file has an ACL and other attributes besides."""
    names = own_files.attributes(path)
    return _holds_acl(names) and not all(name.startswith(SYSTEM) for name in names)


def _holds_acl(attributes: Iterable[str]) -> bool:
    return any(name.startswith(ACL) for name in attributes)


def scan(sources: Iterable[str], foreign: Collection[str]) -> list[str]:
    """Names at and below ``sources`` that a first transfer loses ACLs of.

    That is cheaper than to have rsync print the name of each file that it sends.
    ``foreign`` is own_files.walk's.
    """
    found: list[str] = []
    for directory, entries in own_files.walk(sources, foreign):
        if _has_both(directory):
            found.append(directory[1:] or "./")
        found += [
            entry.path[1:]
            for entry in entries
            if not (entry.is_symlink() or entry.is_dir(follow_symlinks=False))
            and _is_lost_at_first(entry)
        ]
    return found


def _is_lost_at_first(entry: os.DirEntry[str]) -> bool:
    if not entry.is_file(follow_symlinks=False):
        return _has_both(entry.path)
    try:
        changed = entry.stat(follow_symlinks=False).st_ctime
    except OSError:  # it is gone
        return False
    is_late = changed > time.time() - LATELY_S
    return is_late and _holds_acl(own_files.attributes(entry.path))
