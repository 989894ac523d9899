"""Makes rsync compare, on the second server, what the first one says has changed.

The first server may name whatever it likes: each name is looked for in this client's
``current`` alone, and the worst that it can do there is to have a file compared.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import time
from collections.abc import Callable
from pathlib import Path

from byteback.errors import RefusedError, UnreachableError
from byteback.server.store import state, tree
from byteback.server.store.layout import Store
from byteback.server.store.state import Transfer
from byteback.server.transfer import recheck
from byteback.system.rsync import fake_super
from byteback.wire import changed_names

SILENCE_S = 900.0
LOOK_S = 2.0


def take(store: Store, client: str, fd: int, guard: Callable[[], None]) -> bool:
    """Give each file that is named on ``fd`` a time that is wrong, in ``current``.

    True if the first server says that a second transfer is needed after the first.
    The caller holds the client's lock. ``guard`` is called every few seconds, and ends
    this by raising. Raises CompareAllError where the first server does not know which
    files changed, EOFError where it ends too early, RefusedError or UnreachableError
    where it sends something else, or nothing.
    """
    is_again = False
    try:
        for name in changed_names.read_names(_Reader(fd, guard).read):
            if not name:
                is_again = True
                continue
            if not state.read(store, client).is_cut_off:
                # Until rsync has set the times right this is no finished backup.
                state.write(store, client, Transfer.FAILED)
            _doubt(store.current(client), os.fsdecode(name))
    except ValueError as error:
        raise RefusedError(f"the first server sends no answer: {error}") from None
    return is_again


def _doubt(current: Path, path: str) -> None:
    """Have rsync compare one plain file, if that is what the path stands for.

    And have it write the file's ACL anew, which it would lose otherwise (see changed).
    """
    parent, _, name = path.rpartition("/")
    directory = tree.open_beneath(current, parent)
    if directory is None:
        return
    try:
        found = tree.status(directory, name)
        if found is not None and stat.S_ISREG(found.st_mode):
            with contextlib.suppress(PermissionError):  # an old tool left it to root
                recheck.doubt(directory, name, found)
                _forget_acl(f"/proc/self/fd/{directory}/{name}")
    finally:
        os.close(directory)


def _forget_acl(path: str) -> None:
    for key in fake_super.ACLS:
        try:
            os.removexattr(path, key, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise


class _Reader:
    """Reads what is sent, and not a byte more, for what follows is rsync's."""

    def __init__(self, fd: int, guard: Callable[[], None]) -> None:
        self._fd, self._guard = fd, guard
        self._looked = time.monotonic()

    def read(self, size: int) -> bytes:
        """Exactly so many bytes. Raises EOFError, and UnreachableError in silence."""
        found = b""
        deadline = time.monotonic() + SILENCE_S
        while len(found) < size:
            is_ready = select.select([self._fd], [], [], LOOK_S)[0]
            if time.monotonic() - self._looked >= LOOK_S:
                self._looked = time.monotonic()
                self._guard()
            if not is_ready:
                if time.monotonic() > deadline:
                    raise UnreachableError("the first server did not answer in time")
                continue
            chunk = os.read(self._fd, size - len(found))
            if not chunk:
                raise EOFError
            found += chunk
        return found
