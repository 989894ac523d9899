"""Keeps room in the store by deleting the snapshots that matter least."""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import stat
from collections.abc import Callable
from datetime import UTC, datetime

from byteback import locking
from byteback.errors import (
    BytebackError,
    LockedError,
    NotSetUpError,
    ToolError,
    UsageError,
    quote,
)
from byteback.model import retention
from byteback.model.free_space import FreeSpace, Limits, wants_pruning
from byteback.model.retention import Place
from byteback.model.snapshot import Snapshot, parse_snapshot_name
from byteback.server import settings
from byteback.server.store import USER, Store, find_store
from byteback.tools import btrfs
from byteback.tools.host import LocalZone

logger = logging.getLogger(__name__)

AGE = "age"
IMPORTANCE = "importance"
ORDERS = (AGE, IMPORTANCE)

SPACE_TIMEOUT_S = 120.0  # for the space of one deleted snapshot to come back
MAX_FAILURES = 5  # what fails for five snapshots will fail for the others too
UNDER_WAY = "pruning"  # in the store's state: the upper limit is still to be reached


def utc_now() -> datetime:
    """The time by this machine's clock."""
    return datetime.now(UTC)


def open_store() -> Store:
    """This machine's store, for a caller who may prune it.

    Raises NotSetUpError if there is none, BytebackError for a caller who is neither
    root nor its owner.
    """
    store = find_store()
    if not store.root.is_dir():
        raise NotSetUpError(
            f"the store {quote(str(store.root))} is missing",
            hint="mount it, or make it with byteback-setup-server",
        )
    if os.geteuid() not in {0, pwd.getpwnam(USER).pw_uid}:
        raise BytebackError(
            f"only root and the user {quote(USER)} can look after the store",
            hint="run this with sudo",
        )
    return store


def choose_limits(min_percent: float | None, max_percent: float | None) -> Limits:
    """The limits in force: what is given here beats server.toml beats the defaults.

    Raises UsageError if they contradict each other.
    """
    if min_percent is None or max_percent is None:
        known = settings.load()
        min_percent = known.min_percent if min_percent is None else min_percent
        max_percent = known.max_percent if max_percent is None else max_percent
    if not 0 <= min_percent < max_percent <= 100:
        raise UsageError(
            f"the minimum of free space ({min_percent:g} %) must be below the maximum "
            f"({max_percent:g} %), both between 0 and 100"
        )
    return Limits(min_percent, max_percent)


class Pruner:
    """One run over one store. ``now`` is the clock, for tests to replace."""

    def __init__(
        self,
        store: Store,
        order: str = IMPORTANCE,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.store = store
        self.order = order
        self.now = now
        self._spared: set[Snapshot] = set()
        self._failures: list[ToolError] = []

    def places(self) -> list[Place]:
        """All snapshots of all clients in the chosen order, the next to go last."""
        snapshots: list[Snapshot] = []
        for host in self.store.hosts():
            # A host's directory may be taken away while we look.
            with contextlib.suppress(FileNotFoundError):
                snapshots += self.store.snapshots(host)
        if self.order == AGE:
            return retention.order_by_age(snapshots)
        return retention.order_by_importance(snapshots, self.now(), LocalZone())

    def listing(self) -> list[str]:
        """One line for each snapshot, in order: HOST/SNAPSHOT, why, what keeps it."""
        places = self.places()
        kept = retention.protections([p.snapshot for p in places], self.now())
        width = max((len(place.snapshot.path) for place in places), default=0)
        lines = []
        for snapshot, reason in places:
            keeping = f"; kept: {kept[snapshot]}" if snapshot in kept else ""
            lines.append(f"{snapshot.path:<{width}}  {reason}{keeping}")
        return lines

    def prune(self, limits: Limits) -> int:
        """If space is short, delete until it is not; return how many went.

        After each deletion it waits until the space is really back. A run that finds
        another one at work leaves the work to it. Raises ToolError at the end if a
        snapshot could not be deleted.
        """
        if not self._is_due(limits):
            return 0
        try:
            with locking.hold_directory(self.store.root):
                # Another run may have ended while this one came to the lock.
                deleted = self._prune_locked(limits) if self._is_due(limits) else 0
        except LockedError:
            logger.info("another run is pruning already")
            return 0
        self._raise_failures()
        return deleted

    def prune_one(self) -> int:
        """Delete the last snapshot in the order, whatever its age: 1, or 0 if none.

        A host's newest goes only when there is nothing else. Raises LockedError if
        another run is pruning, ToolError if the deletion fails.
        """
        with locking.hold_directory(self.store.root):
            while True:
                found = retention.next_to_force(self.places(), self.now(), self._spared)
                if found is None:
                    logger.info("there is no snapshot to delete")
                    return 0
                place, is_newest = found
                if is_newest:
                    logger.warning(
                        "nothing else is left: deleting the newest snapshot of host %s",
                        quote(place.snapshot.host),
                    )
                if self._delete(place, self._free()) is not None:
                    return 1
                self._raise_failures()

    def _prune_locked(self, limits: Limits) -> int:
        self._mark_under_way(True)
        deleted = 0
        # Not known at first: an earlier run may have been cut off, or somebody may
        # have deleted by hand, and their space be still on its way.
        is_settled: bool | None = None
        while wants_pruning((free := self._free()).percent, limits, under_way=True):
            place = retention.next_to_go(self.places(), self.now(), self._spared)
            if place is None or len(self._failures) >= MAX_FAILURES:
                self._say_stuck(free, limits)
                return deleted
            if is_settled is None:
                is_settled = self._wait()
                if is_settled:
                    continue
            if not is_settled:
                logger.warning(
                    "free space is %s, but what is deleted already has not given back "
                    "its space yet: a later run goes on",
                    free,
                )
                return deleted
            outcome = self._delete(place, free)
            if outcome is not None:
                deleted += 1
                is_settled = outcome
        self._mark_under_way(False)
        return deleted

    def _delete(self, place: Place, before: FreeSpace) -> bool | None:
        """Delete one snapshot and wait: whether its space is back already.

        None if the snapshot was not deleted; it is left alone from then on.
        """
        snapshot = place.snapshot
        path = self.store.host_directory(snapshot.host) / snapshot.name
        if not self._is_deletable(snapshot):
            self._spared.add(snapshot)
            return None
        try:
            btrfs.delete_on_full_disc(path)
        except ToolError as error:
            if btrfs.is_subvolume(path):
                self._spared.add(snapshot)
                self._failures.append(error)
                logger.warning("cannot delete %s: %s", snapshot.path, error.message)
                return None
        is_settled = self._wait()
        logger.info(
            "deleted %s (%s); free space was %s, is %s",
            snapshot.path,
            place.reason,
            before,
            self._free(),
        )
        return is_settled

    def _is_deletable(self, snapshot: Snapshot) -> bool:
        """Whether it is still a subvolume with a snapshot's name beneath its host.

        Asked immediately before each deletion: what was listed a moment ago may have
        been replaced, by a link for one.
        """
        directory = self.store.host_directory(snapshot.host)
        path = directory / snapshot.name
        if parse_snapshot_name(snapshot.name) is None:
            return False
        try:
            is_real = stat.S_ISDIR(directory.lstat().st_mode)
            path.lstat()
        except FileNotFoundError:
            return False
        if not (is_real and btrfs.is_subvolume(path)):
            logger.warning("left %s alone: it is no subvolume", quote(snapshot.path))
            return False
        return self.store.is_client(snapshot.host)

    def _free(self) -> FreeSpace:
        return btrfs.free_space(self.store.root)

    def _wait(self) -> bool:
        return btrfs.wait_for_deletions(self.store.root, SPACE_TIMEOUT_S)

    def _is_due(self, limits: Limits) -> bool:
        free = self._free()
        under_way = (self.store.state / UNDER_WAY).exists()
        is_due = wants_pruning(free.percent, limits, under_way=under_way)
        if not is_due:
            logger.debug("free space is %s: nothing to do", free)
        return is_due

    def _mark_under_way(self, under_way: bool) -> None:
        """Note for later runs that the upper limit is to be reached.

        On a disc without a byte left this may fail, and then free space is below the
        lower limit, so that no note is needed yet.
        """
        mark = self.store.state / UNDER_WAY
        with contextlib.suppress(OSError):
            if not under_way:
                mark.unlink(missing_ok=True)
            elif not mark.exists():
                mark.touch(mode=0o600)

    def _say_stuck(self, free: FreeSpace, limits: Limits) -> None:
        level = logging.WARNING if free.percent <= limits.min_percent else logging.DEBUG
        logger.log(
            level,
            "free space is %s, and no snapshot may be deleted: each is younger than a "
            "week, the newest of its host, or could not be deleted",
            free,
        )

    def _raise_failures(self) -> None:
        if not self._failures:
            return
        first = self._failures[0]
        message = first.message
        if len(self._failures) > 1:
            message += f" (and {len(self._failures) - 1} more)"
        hint = first.hint
        if any("Operation not permitted" in line for line in first.details):
            hint = "mount the store with user_subvol_rm_allowed, or run this as root"
        raise ToolError(message, hint, first.details, first.status)
