"""Makes rsync look again at files whose contents a power cut may have lost (D14).

rsync takes a file of the right size and time for unchanged. But btrfs commits a file's
new time up to half a minute before the contents that were written under it: after a
power cut an in-place update may have its new time and its old contents, for ever.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from byteback import log

# A time that no file of a client's has; the next transfer sets the right one.
INVALID_MTIME_NS = 1


def doubt_recent(tree: Path, since: float) -> int:
    """Give all files of ``tree`` that were changed since then a time that is wrong.

    ``since`` is in seconds since 1970. Returns how many files there were; the next
    transfer compares their contents. A tree that cannot be gone through, for its depth
    say, is logged: it harms only the client that made it.
    """
    count = 0
    try:
        for _, _, names, directory in os.fwalk(tree, follow_symlinks=False):
            for name in names:
                count += _recheck(name, directory, since)
    except (OSError, RecursionError) as error:
        log.audit("WARNING", what="files in doubt", tree=tree, reason=error)
    return count


def doubt(directory: int, name: str, status: os.stat_result) -> None:
    """Give a file in an open directory a time that is wrong. Raises OSError."""
    times = (status.st_atime_ns, INVALID_MTIME_NS)
    os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)


def _recheck(name: str, directory: int, since: float) -> bool:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode) or status.st_ctime < since:
        return False
    doubt(directory, name, status)
    return True
