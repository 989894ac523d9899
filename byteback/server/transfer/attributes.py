"""Removes notes of owner and mode that rsync cannot read (D36).

Its --fake-super keeps them in an attribute of each file. One that is damaged ends every
transfer that comes to the file, with status 11, whatever the client has there.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from byteback import log
from byteback.errors import BusyError
from byteback.server.store import tree
from byteback.server.store.layout import Store
from byteback.server.transfer import recheck
from byteback.system import files
from byteback.system.rsync import fake_super
from byteback.wire.failures import Reason


def note(store: Store, client: str) -> None:
    """Have the next transfer mend the tree: this one may not live as long as it takes.

    Its client has heard of it from rsync, may come again at once, and so end it (D10).
    """
    try:
        files.write_atomically(_note(store, client), b"", mode=0o600)
    except OSError as error:
        log.audit("WARNING", host=client, what="damaged attributes", reason=error)


def come_again() -> BusyError:
    """The error that has the client begin the transfer which mends the tree."""
    return BusyError(
        "the note of a file's owner and mode is damaged, and is to be mended",
        hint="try again at once",
        reason=Reason.AT_ONCE,
    )


def mend(store: Store, client: str) -> None:
    """Remove what is damaged in ``current`` if a transfer has noted that something is.

    Contents of such files are compared again, too. The caller holds the host's lock.
    """
    if not _note(store, client).exists():
        return
    current, count, first = store.current(client), 0, None
    try:
        _mend_top(current)
        with contextlib.closing(tree.entries_below(current)) as entries:
            for directory, path, entry in entries:
                if _mend(directory, entry):
                    count, first = count + 1, first or path
    except (OSError, OverflowError) as error:
        log.audit("WARNING", host=client, what="damaged attributes", reason=error)
    log.audit(
        "RECOVER", host=client, what="damaged attributes", files=count, first=first
    )
    _note(store, client).unlink(missing_ok=True)


def _mend(directory: int, entry: os.DirEntry[str]) -> bool:
    # There is no fgetxattrat(2). Nothing here is a link, and none would be followed.
    path = f"/proc/self/fd/{directory}/{entry.name}"
    with contextlib.suppress(OSError):
        value = os.getxattr(path, fake_super.ATTRIBUTE, follow_symlinks=False)
        if fake_super.is_readable(value):
            return False
        status = tree.status(directory, entry.name)
        os.removexattr(path, fake_super.ATTRIBUTE, follow_symlinks=False)
        if status is not None and stat.S_ISREG(status.st_mode):
            recheck.doubt(directory, entry.name, status)
        return True
    return False


def _mend_top(current: Path) -> None:
    with contextlib.suppress(OSError):
        value = os.getxattr(current, fake_super.ATTRIBUTE)
        if not fake_super.is_readable(value):
            os.removexattr(current, fake_super.ATTRIBUTE)


def _note(store: Store, client: str) -> Path:
    return store.lock_path(client).with_suffix(".damaged")
