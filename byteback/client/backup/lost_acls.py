"""Finds the ACLs that the server's rsync has lost, for a second try to bring them.

With --fake-super rsync keeps an ACL in an attribute of its own. Where a directory is
new, or the attributes of a file with an ACL have changed, it writes the ACL first and
the attributes after it, and there takes the ACL's for one that the source does not have
and removes it (rsync 3.1 to 3.5, rsync_xal_set). It is sent anew by the next transfer,
which finds it missing, and the attributes in place.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from byteback.client.backup import own_files

ACL = "system.posix_acl_"
SYSTEM = "system."  # rsync sends no other attribute of this kind

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
        is_new = flags.endswith(_NEW) and flags[1] not in "fL"
        # The attributes that have changed may have been the last ones.
        path = f"/{name}".removesuffix("/")
        if path in self._foreign:
            return
        has_changed = flags[_ATTRIBUTES] == "x" and _holds_acl(
            own_files.attributes(path)
        )
        if has_changed or (is_new and _has_both(path)):
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
            if not (entry.is_file(follow_symlinks=False) or entry.is_symlink())
            and not entry.is_dir(follow_symlinks=False)
            and _has_both(entry.path)
        ]
    return found
