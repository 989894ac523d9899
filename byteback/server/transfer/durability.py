"""Makes sure that what a transfer wrote has reached the store's disc."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from byteback import log
from byteback.errors import BusyError, StoreError
from byteback.server.store import state
from byteback.server.store.layout import Store
from byteback.system import files
from byteback.wire.failures import Reason


class Disc:
    """The disc of a client's ``current``, seen from before the first byte on."""

    def __init__(self, store: Store, client: str, fd: int) -> None:
        self._store = store
        self._host = client
        self._fd = fd

    def sync(self) -> None:
        """Have everything reach the disc. Raises StoreError if a write has failed.

        btrfs itself goes on after a failed write of data, without that data: where an
        image's own disc is full, say. The next push compares those files again.
        """
        try:
            files.sync_file_system(self._fd)
        except OSError as error:
            log.audit("WARNING", host=self._host, what="disc", reason=error.strerror)
            with contextlib.suppress(BusyError):
                state.note_lost(self._store, self._host)
            raise StoreError(
                f"not all that was written reached the store's disc: {error.strerror}",
                hint="the kernel's log (dmesg) says why; the disc around an image may "
                "be full",
                reason=Reason.STORE_FAILED,
            ) from None


@contextlib.contextmanager
def watched(store: Store, client: str) -> Iterator[Disc]:
    """Watch the disc for failed writes for the length of the block."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(store.current(client), flags)
    try:
        yield Disc(store, client, fd)
    finally:
        os.close(fd)
