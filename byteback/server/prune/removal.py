"""Deletes snapshots, one at a time, each checked again immediately before."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

from byteback.errors import ToolError, quote
from byteback.model.free_space import FreeSpace, Limits
from byteback.model.retention import RankedSnapshot
from byteback.model.snapshot import Snapshot, parse_snapshot_name
from byteback.server.accounting import ledger, sizes
from byteback.server.search import indexing
from byteback.server.snapshots import seal, sealing
from byteback.server.store import reserve
from byteback.server.store.layout import Store
from byteback.system import privilege
from byteback.system.btrfs import commands

logger = logging.getLogger(__name__)

SPACE_TIMEOUT_S = 120.0  # for the space of one deleted snapshot to come back
MAX_FAILURES = 5  # what fails for five snapshots will fail for the others too
LOPSIDED_PERCENT = 10.0  # what one kind of room must have more than the upper limit


class Remover:
    """Deletes from one store, and remembers what could not be deleted."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.spared: set[Snapshot] = set()
        self.failures: list[ToolError] = []
        self._needs_root = False

    @property
    def is_stuck(self) -> bool:
        """True if there is no use in trying more snapshots."""
        return self._needs_root or len(self.failures) >= MAX_FAILURES

    def free(self) -> FreeSpace:
        """The room in the store now."""
        return commands.free_space(self.store.root)

    def wait(self) -> bool:
        """Wait until the space of what was deleted is back; False if it is not yet."""
        return commands.wait_for_deletions(self.store.root, SPACE_TIMEOUT_S)

    def delete(self, place: RankedSnapshot, before: FreeSpace) -> bool | None:
        """Delete one snapshot and wait: whether its space is back already.

        None if the snapshot was not deleted; it is spared from then on.
        """
        snapshot = place.snapshot
        path = self.store.host_directory(snapshot.host) / snapshot.name
        if not self.is_deletable(snapshot):
            self.spared.add(snapshot)
            return None
        expected = self._expected(snapshot)
        try:
            self._refuse_sealed(snapshot)
            commands.delete_on_full_disc(
                path, self._make_room, seal.deletion_check(snapshot.path)
            )
        except ToolError as error:
            if commands.is_subvolume(path):
                self._note_failure(snapshot, error)
                return None
        is_settled = self.wait()
        self._note(snapshot, before, expected, is_settled=is_settled)
        logger.info(
            "deleted %s (%s); free space was %s, is %s",
            snapshot.path,
            place.reason,
            before,
            self.free(),
        )
        return is_settled

    def _expected(self, snapshot: Snapshot) -> int | None:
        """About what comes back, of which the neighbours in the history tell."""
        names = [there.name for there in self.store.snapshots(snapshot.host)]
        found = sizes.expected_from_each(self.store, snapshot.host, names)
        return found.get(snapshot.name)

    def _note(
        self,
        snapshot: Snapshot,
        before: FreeSpace,
        expected: int | None,
        *,
        is_settled: bool,
    ) -> None:
        """Record what came back, which corrects later estimates."""
        freed = self.free().free_bytes - before.free_bytes if is_settled else None
        ledger.note_deletion(self.store, snapshot.host, snapshot.name, expected, freed)

    def _note_failure(self, snapshot: Snapshot, error: ToolError) -> None:
        self.spared.add(snapshot)
        # raise_failures tells of all of them at once.
        logger.debug("cannot delete %s: %s", snapshot.path, error.message)
        if commands.is_out_of_space(error) and not privilege.is_root_within_reach():
            self._needs_root = True
            error = _full_disc_error(error)
        self.failures.append(error)

    def _make_room(self) -> bool:
        """Give up what can be made again; whether there was anything left.

        The store's user has to clear a snapshot's read-only flag first, for which btrfs
        lets no program use what it keeps back for deletions (D18).
        """
        return reserve.release(self.store) or indexing.give_up(self.store)

    def is_deletable(self, snapshot: Snapshot) -> bool:
        """True if it is still a subvolume with a snapshot's name beneath its host.

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
        if not (is_real and commands.is_subvolume(path)):
            logger.warning("left %s alone: it is no subvolume", quote(snapshot.path))
            return False
        if not sealing.is_deletable(self.store, snapshot.host, snapshot.name):
            logger.debug("left %s alone: it is another one's", quote(snapshot.path))
            return False
        return self.store.is_client(snapshot.host)

    def _is_sealed(self, snapshot: Snapshot) -> bool:
        directory = self.store.host_directory(snapshot.host)
        return seal.is_roots(directory / snapshot.name)

    def _refuse_sealed(self, snapshot: Snapshot) -> None:
        if not privilege.is_root_within_reach() and self._is_sealed(snapshot):
            raise sealed_error(f"{quote(snapshot.path)} is")

    def raise_failures(self) -> None:
        """Raise what could not be deleted, all of it in one ToolError."""
        if not self.failures:
            return
        first = self.failures[0]
        message = first.message
        if len(self.failures) > 1:
            message += f" (and {len(self.failures) - 1} more)"
        hint = first.hint
        if hint is None and any(
            "Operation not permitted" in line for line in first.details
        ):
            hint = "mount the store with user_subvol_rm_allowed, or run this as root"
        raise ToolError(message, hint, first.details, first.status)


def sealed_error(which: str) -> ToolError:
    """``which``, with its verb, cannot be deleted by the store's user."""
    return ToolError(
        f"{which} sealed: only root deletes that",
        hint="byteback-setup-server schedules pruning as root; by hand, run this as "
        "root",
    )


def _full_disc_error(error: ToolError) -> ToolError:
    return ToolError(
        "the disc is so full that only root can delete a snapshot",
        "root's next run does it, where byteback-setup-server has scheduled pruning; "
        "by hand, run this with sudo",
        error.details,
        error.status,
    )


def rebalance(root: Path, free: FreeSpace, limits: Limits) -> bool:
    """If one kind of room is short and the other is not, move some over (D19).

    btrfs hands space out in large pieces to data or to metadata, and what is set aside
    for one is lost to the other until it is compacted: deleting snapshots would then
    use up history for little. True if anything was tried.
    """
    if free.metadata is None:
        return False
    metadata_percent = free.metadata.free_percent
    plenty = limits.max_percent + LOPSIDED_PERCENT
    if metadata_percent < limits.max_percent and free.data_percent >= plenty:
        kind = "data"
    elif free.data_percent < limits.max_percent and free.metadata.is_mostly_unused:
        kind = "metadata"
    else:
        return False
    if not commands.compact(root, kind):
        return False
    logger.info("compacted %s, as room is short elsewhere (%s)", kind, free)
    return True
