"""Looks after one push: measures it, and stops it before it fills the disc."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from byteback.errors import (
    BusyError,
    PolicyError,
    ToolError,
    quote,
)
from byteback.model.free_space import FreeSpace
from byteback.model.growth import Allowance, Taken
from byteback.model.growth import allowance as find_allowance
from byteback.model.size import format_size
from byteback.server.accounting import growth, ledger
from byteback.server.store.layout import Store
from byteback.server.store.settings import ServerSettings
from byteback.server.transfer import full_disc
from byteback.system.btrfs import commands

METADATA_EVERY = 5  # looks: asking btrfs starts a program, asking the kernel does not
PRUNE_PAUSE_S = 60.0
PRUNING = "pruning"  # in the store's state while prune.py makes room (D17)
WORTH_A_SYNC = 16 * 2**20  # bytes; less is in no disc's way


class Watch:
    """Looks after one push: measures it, and stops it before it fills the disc."""

    def __init__(
        self,
        store: Store,
        client: str,
        limits: ServerSettings,
        number: int | None,
        guard: Callable[[], None] = lambda: None,
    ) -> None:
        self._guard = guard
        self._store = store
        self._host = client
        self._limits = limits
        self._number = number  # in the ledger
        self._start = self._free = commands.free_space(store.root)
        self._returned = Taken()  # room that pruning gave back meanwhile
        self._unseen = 0  # bytes written while room came back
        self._written = 0
        self._looks = 0
        self._noted = 0  # bytes, in the ledger
        self._flushed = 0  # of what was written
        self._pruned_at = -PRUNE_PAUSE_S
        self._is_stopped = False
        self._allowance = self._find_allowance()

    def look(self, written: int | None) -> None:
        """To be called every few seconds while the transfer runs.

        Raises PolicyError if the backup is suddenly larger and has left too little
        room, and what the guard raises; the caller stops it.
        """
        self._guard()
        self._look_at_room()
        self._look_behind_cache(written)
        self._note_unseen(written)
        is_short = self._free.percent <= self._limits.min_percent
        taken = self._taken(written)
        if self._allowance is None or not self._allowance.is_exceeded_by(taken):
            if is_short:
                self._prune()
            return
        # Before there is a shortage: pruning must know whose it is.
        step = self._start.total_bytes // 100
        if is_short or taken.data + taken.metadata >= self._noted + step:
            self._noted = taken.data + taken.metadata
            ledger.note_taken(self._store, self._number, taken, short_timeout=True)
        if is_short:
            self._stop(self._allowance, taken)

    def finish(self, written: int | None) -> None:
        """Record what the transfer took; never fails."""
        with contextlib.suppress(OSError, ToolError):
            if written is None or written >= WORTH_A_SYNC:
                commands.sync(self._store.root)
            self._take_stock(commands.free_space(self._store.root))
        self._note_unseen(written)
        taken = self._taken(written)
        ledger.note_taken(self._store, self._number, taken, stopped=self._is_stopped)
        if self._free.percent <= self._limits.min_percent:
            self._prune()

    def _find_allowance(self) -> Allowance | None:
        """How much this push may take; None if its host's backups are approved."""
        record = growth.record_of(self._store, self._host)
        backups = growth.group_backups(record)
        # The last one is this very push's, if that could be recorded.
        is_recorded = self._number is not None and bool(backups)
        current = backups.pop() if is_recorded else None
        return find_allowance(
            backups,
            current,
            time.time(),
            growth.size_of(self._start),
            growth.rules_of(self._limits),
            growth.origin_of(self._store, self._host, record),
        )

    def _look_at_room(self) -> None:
        self._looks += 1
        if self._looks % METADATA_EVERY == 0:
            with contextlib.suppress(OSError, ToolError):
                self._take_stock(commands.free_space(self._store.root))
        else:
            view = os.statvfs(self._store.root)
            free = FreeSpace(
                view.f_bavail * view.f_frsize,
                view.f_blocks * view.f_frsize,
                self._free.metadata,
            )
            self._take_stock(free)

    def _take_stock(self, free: FreeSpace) -> None:
        """Take the room as it is now, and count what pruning has given back of it."""
        if self._is_pruning():
            less = _less_room(self._free, free)
            self._returned += Taken(max(0, -less.data), max(0, -less.metadata))
        self._free = free

    def _is_pruning(self) -> bool:
        # Where its mark cannot be made there is no room at all.
        is_marked = (self._store.state / PRUNING).exists()
        return is_marked or self._free.percent <= self._limits.min_percent

    def _note_unseen(self, written: int | None) -> None:
        """Count what is written while pruning gives room back, for that hides it.

        Else a client could begin when room is almost short, have others' history
        deleted for it, and be found to have taken nothing, for as long as it likes.
        """
        if written is None:
            return
        if self._is_pruning():
            self._unseen += max(0, written - self._written)
        self._written = written

    def _look_behind_cache(self, written: int | None) -> None:
        """Have written what is not on the disc yet, once it could reach the floor.

        Until then, for half a minute or more, the kernel counts it as free.
        """
        if self._allowance is None or written is None:
            return
        floor = self._free.total_bytes * self._limits.min_percent / 100
        unseen = written - self._flushed
        little = min(WORTH_A_SYNC, self._free.total_bytes // 500)
        if unseen > max(little, (self._free.free_bytes - floor) / 2):
            self._flushed = written
            with contextlib.suppress(ToolError):
                commands.sync(self._store.root)
            self._look_at_room()

    def _taken(self, written: int | None) -> Taken:
        """No more than the room that went meanwhile, nor than was written.

        Others write at the same time, and what is written may be compressed. What
        pruning gives back at the same time takes nothing away from it.
        """
        less = _less_room(self._start, self._free) + self._returned
        data = max(0, less.data) + self._unseen
        if written is not None:
            data = min(data, written)
        return Taken(data, max(0, less.metadata))

    def _stop(self, before: Allowance, taken: Taken) -> None:
        """Raise what ends this push, unless it was found to be usual meanwhile."""
        self._allowance = self._find_allowance()
        if self._allowance is not None:  # of which the ledger has this very push now
            self._allowance = self._allowance._replace(so_far=before.so_far)
        if self._allowance is None or not self._allowance.is_exceeded_by(taken):
            self._prune()  # approved, or measured
            return
        if self._allowance.is_guess:
            self._prune()  # which finds out
            raise BusyError(
                f"it is not known yet how much a backup of {quote(self._host)} usually "
                "takes, and the server is short of room",
                hint="it finds out within minutes, try again then; what was sent is "
                "kept",
            )
        self._is_stopped = True  # which is written again when it has ended
        ledger.note_taken(
            self._store, self._number, taken, stopped=True, short_timeout=True
        )
        amount = format_size(taken.data + taken.metadata)
        client = quote(self._host)
        what = (
            f"the first backup of {client} needs more room than is free"
            if self._allowance.is_first
            else f"this backup is suddenly larger than the earlier ones of {client}"
        )
        raise PolicyError(
            f"stopped: {what}, and the server is short of room (this transfer has "
            f"taken {amount}; {self._free} is free)",
            hint=f"what was sent is kept. On the server, 'byteback-prune --approve "
            f"{self._host}' lets it go on and 'byteback-prune --discard {self._host}' "
            "drops it",
        )

    def _prune(self) -> None:
        """Start a pruning run, but not one with each look."""
        if time.monotonic() - self._pruned_at >= PRUNE_PAUSE_S:
            self._pruned_at = time.monotonic()
            full_disc.start_pruning()


def _less_room(before: FreeSpace, after: FreeSpace) -> Taken:
    """How much less there is; below zero where there is more."""
    data = before.free_bytes - after.free_bytes
    if before.metadata is None or after.metadata is None:
        return Taken(data)
    return Taken(data, after.metadata.used - before.metadata.used)
