"""Keeps room in the store by deleting the snapshots that matter least."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from byteback import locking
from byteback.errors import (
    LockedError,
    PolicyError,
    ToolError,
    quote,
)
from byteback.model import retention
from byteback.model.free_space import (
    FreeSpace,
    Limits,
    is_nearly_full,
    wants_pruning,
    wants_pruning_for_others,
)
from byteback.model.growth import Verdict
from byteback.model.status import PruneFault
from byteback.server.access import invitations
from byteback.server.accounting import (
    baseline,
    file_count,
    growth,
    sizes,
    snapshot_sources,
)
from byteback.server.fleet import finish, retiring
from byteback.server.prune import idle, looked, obstacles, removal, repair, report
from byteback.server.prune.looked import Looked
from byteback.server.prune.obstacles import Kind, Obstacles, of_kind
from byteback.server.prune.removal import Remover, sealed_error
from byteback.server.prune.report import IMPORTANCE
from byteback.server.search import indexing
from byteback.server.store import clock, marks, reserve
from byteback.server.store.layout import Store
from byteback.system import privilege

logger = logging.getLogger(__name__)

# Root waits for a run of the store's user. Clients' transfers start those, as often as
# they come while room is short, and there is much that only root can do (D15, D29).
ROOT_WAIT_S = 150.0
ROOT_ALIVE_S = 3600.0  # since root's last run: it comes every few minutes


def utc_now() -> datetime:
    """The time by this machine's clock."""
    return datetime.now(UTC)


class Pruner:
    """One run over one store. ``now`` is the clock, for tests to replace.

    With ``jump_s``, by which the clock has jumped, nothing is deleted.
    """

    def __init__(
        self,
        store: Store,
        order: str = IMPORTANCE,
        now: Callable[[], datetime] = utc_now,
        *,
        jump_s: float | None = None,
    ) -> None:
        self.store = store
        self._jump_s = jump_s
        self.order = order
        self.now = now
        self._remover = Remover(store)
        self._known_verdicts: dict[str, Verdict] | None = None
        self._obstacles: Obstacles = {}
        self._stuck_by = PruneFault.FAILED  # what it means if room stays short
        self._stuck: PolicyError | None = None  # nearly full, and nothing may go
        self._is_measured = True  # whether it is known what all hosts usually send

    def listing(self) -> list[str]:
        """One line for each snapshot, the next to go last."""
        found = self._find_obstacles()
        places = self._places()
        sizes_ = sizes.expected_from_all(self.store, [p.snapshot for p in places])
        return report.listing(
            *(places, self._verdicts(), found, self.now(), sizes_),
            snapshot_sources.read(self.store),
        )

    def prune(self, limits: Limits) -> int:
        """Put right what was left behind; if space is short, delete until it is not.

        Returns how many went. After each deletion it waits until the space is really
        back. A run that finds another one at work leaves the work to it; root's, if
        that takes long. Raises ToolError at the end if a snapshot could not be deleted,
        PolicyError if none was because the clock has jumped.
        """
        try:
            with self._locked():
                finish.finish(self.store)
                looked = self._put_right()
                if self._jump_s is None:
                    retiring.remove_due(self.store)
                    invitations.forget_ended(self.store)
                is_due = self._is_due(limits)
                may_delete = is_due and self._jump_s is None
                deleted = self._prune_locked(limits, looked) if may_delete else 0
                is_short = is_due and self._wants(self._free(), limits, under_way=False)
                self._provide_reserve(limits)
                self._note_fault(limits, is_due=is_due)
                self._stuck = None if deleted else self._stuck
        except LockedError:
            logger.info("another run is pruning already")
            return 0
        if not is_short:
            is_measured = baseline.measure_new(self.store)
            if not looked.is_as_known:
                looked.doubt(*indexing.index_new(self.store, looked.changed))
            if is_measured and not is_due:
                looked.keep()
        idle.note_run(self.store, self._free())
        self._remover.raise_failures()
        if is_due:
            self._refuse_jumped_clock()
        return deleted

    def _put_right(self, *, afresh: bool = False) -> Looked:
        """Mend what crashes have left, and count new names, where anything changed."""
        looked = Looked(self.store, time.time(), afresh=afresh)
        if looked.changed:
            looked.doubt(*repair.repair(self.store, looked.changed))
            looked.doubt(*file_count.count_new(self.store, looked.changed))
        return looked

    def refuse_full_disc(self) -> None:
        """Raise PolicyError if the disc is nearly full, and the run deleted nothing.

        Where it deleted some, the next run tells whether that was enough.
        """
        if self._stuck is not None:
            raise self._stuck

    def _refuse_jumped_clock(self) -> None:
        if self._jump_s is not None:
            raise clock.refusal(self._jump_s)

    def _note_fault(self, limits: Limits, *, is_due: bool) -> None:
        """Leave for byteback-status why room stays short, if it does.

        Root's runs can do more than those of the store's user: while they go on, they
        alone judge that.
        """
        age_s = time.time() - (marks.read(self.store, marks.SEALED) or 0.0)
        if 0 <= age_s <= ROOT_ALIVE_S and not privilege.is_root_within_reach():
            return
        fault = None
        if self._free().percent <= limits.min_percent:
            fault = self._fault(is_due=is_due)
        marks.note_fault(self.store, fault)

    def _fault(self, *, is_due: bool) -> PruneFault:
        """Why this run, which is at its end, could not make room."""
        if not is_due:
            return PruneFault.HELD if self._is_measured else PruneFault.WAITING
        return PruneFault.CLOCK if self._jump_s is not None else self._stuck_by

    def prune_one(self) -> list[str]:
        """Delete the last snapshot in the order, whatever its age.

        A host's newest goes only when there is nothing else. Returns lines about what
        should be known of it. Raises LockedError if another run is pruning, ToolError
        if the deletion fails, or if all that is left cannot be deleted, PolicyError if
        the clock has jumped.
        """
        self._refuse_jumped_clock()
        with locking.hold_directory(self.store.root):
            looked.forget(self.store)
            repair.look_after_seals(self.store)
            spared = self._remover.spared
            spared |= of_kind(self._find_obstacles(), Kind.OTHER_NAME)
            while True:
                places = self._places()
                found = retention.next_to_force(places, self.now(), spared)
                if found is None:
                    return self._nothing_to_force(places)
                place, is_newest = found
                if self._remover.delete(place, self._free()) is not None:
                    return [self._tell_newest(place)] if is_newest else []
                self._remover.raise_failures()

    def _tell_newest(self, place: retention.RankedSnapshot) -> str:
        told = (
            f"no other snapshot was left: deleted {place.snapshot.path}, the newest of "
            f"host {quote(place.snapshot.host)}"
        )
        logger.warning("%s", told)
        return told

    def _nothing_to_force(
        self, places: Sequence[retention.RankedSnapshot]
    ) -> list[str]:
        """There was nothing to delete; raises ToolError if something is in the way."""
        left = [place.snapshot for place in places]
        newest = retention.newest_of_hosts(left, self.now())
        stuck = [s for s in left if s in self._obstacles and s not in newest]
        if not stuck:
            logger.info("there is no snapshot to delete")
            return []
        raise ToolError(
            f"nothing was deleted: {len(stuck)} snapshots beside the newest of each "
            f"host are left, and cannot be deleted ({quote(stuck[-1].path)}: "
            f"{self._obstacles[stuck[-1]].reason})",
            hint="byteback-prune --list marks them; for a client's directory that was "
            "renamed by hand, byteback-clients rename OLD NEW does the rest",
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the store's lock; LockedError if another run has it for too long."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locking.hold_directory(self.store.root))
            except LockedError:
                if not privilege.is_root_within_reach():
                    raise
                logger.info("waiting for another run, which is pruning already")
                lock = locking.hold_directory(self.store.root, wait_s=ROOT_WAIT_S)
                stack.enter_context(lock)
            yield

    def _look_afresh(self, looked: Looked) -> None:
        """Look at what decides a deletion: none goes by what is remembered (D57)."""
        if looked.is_everything:
            looked.forget()
        else:
            self._put_right(afresh=True)

    def _prune_locked(self, limits: Limits, looked: Looked) -> int:
        self._look_afresh(looked)
        self._mark_under_way(True)
        self._tell_shrinkages()
        self._remover.spared |= set(self._find_obstacles())
        deleted = 0
        is_evened = False
        # Not known at first: an earlier run may have been cut off, or a person may
        # have deleted by hand, and their space be still on its way.
        is_settled: bool | None = None
        while self._wants(free := self._free(), limits, under_way=True):
            if not is_evened:
                is_evened = True
                if removal.rebalance(self.store.root, free, limits):
                    continue
            places = self._places()
            held = growth.held((p.snapshot for p in places), self._verdicts())
            spared = self._remover.spared | set(held)
            place = retention.next_to_go(places, self.now(), spared)
            if self._remover.is_stuck:
                return deleted
            if place is None:
                self._say_stuck(free, limits, places)
                return deleted
            if is_settled is None:
                is_settled = self._remover.wait()
                if is_settled:
                    continue
            if not is_settled:
                logger.warning(
                    "free space is %s, but what is deleted already has not given back "
                    "its space yet: a later run goes on",
                    free,
                )
                self._stuck_by = PruneFault.WAITING
                return deleted
            outcome = self._remover.delete(place, free)
            if outcome is not None:
                deleted += 1
                is_settled = outcome
        self._mark_under_way(False)
        return deleted

    def _places(self) -> list[retention.RankedSnapshot]:
        """All snapshots in order, without what is known to be none."""
        plain = of_kind(self._obstacles, Kind.NO_SUBVOLUME)
        found = [s for s in report.snapshots(self.store) if s not in plain]
        return report.places(found, self.order, self.now())

    def _find_obstacles(self) -> Obstacles:
        self._obstacles = obstacles.find(self.store, report.snapshots(self.store))
        return self._obstacles

    def _verdicts(self) -> dict[str, Verdict]:
        if self._known_verdicts is None:
            now = self.now().timestamp()
            self._known_verdicts = growth.verdicts(self.store, self._free(), now)
        return self._known_verdicts

    def _free(self) -> FreeSpace:
        return self._remover.free()

    def _is_due(self, limits: Limits) -> bool:
        free = self._free()
        under_way = idle.is_under_way(self.store)
        if wants_pruning(free.percent, limits, under_way=under_way):
            self._is_measured = baseline.measure_needed(self.store)
        is_due = self._wants(free, limits, under_way=under_way)
        if not is_due:
            logger.debug("free space is %s: nothing to do", free)
            if free.percent <= limits.min_percent:
                self._tell_blame(free)
        return is_due

    def _wants(self, free: FreeSpace, limits: Limits, *, under_way: bool) -> bool:
        """True if pruning is due; what suddenly larger backups took is free (D16)."""
        if not wants_pruning(free.percent, limits, under_way=under_way):
            return False
        if wants_pruning_for_others(free.percent, limits, under_way=under_way):
            return True
        taken = growth.blamed(self._verdicts())
        supposed = free.with_returned(taken.data, taken.metadata).percent
        return self._is_measured and wants_pruning(
            supposed, limits, under_way=under_way
        )

    def _provide_reserve(self, limits: Limits) -> None:
        if reserve.is_there(self.store):
            return
        if self._free().percent > limits.min_percent:
            reserve.provide(self.store)

    def _tell_blame(self, free: FreeSpace) -> None:
        for client, verdict in self._verdicts().items():
            if verdict.blamed_since is not None:
                reason = growth.describe_blame(client, verdict)
                logger.warning("free space is %s: %s", free, reason)

    def _tell_shrinkages(self) -> None:
        for client, verdict in self._verdicts().items():
            if verdict.shrinkage is not None:
                logger.warning("%s", growth.describe_shrinkage(client, verdict))

    def _mark_under_way(self, under_way: bool) -> None:
        """Note for later runs that the upper limit is to be reached.

        On a disc without a byte left this may fail, and then free space is below the
        lower limit, so that no note is needed yet.
        """
        mark = self.store.state / idle.UNDER_WAY
        with contextlib.suppress(OSError):
            if not under_way:
                mark.unlink(missing_ok=True)
            elif not mark.exists():
                mark.touch(mode=0o600)

    def _say_stuck(
        self,
        free: FreeSpace,
        limits: Limits,
        places: Sequence[retention.RankedSnapshot],
    ) -> None:
        if not self._remover.failures:
            is_held = bool(growth.held((p.snapshot for p in places), self._verdicts()))
            self._stuck_by = PruneFault.HELD if is_held else PruneFault.NOTHING
        sealed = of_kind(self._obstacles, Kind.ROOTS)
        if sealed and free.percent <= limits.min_percent:
            which = f"free space is {free}, and {len(sealed)} snapshots are"
            self._remover.failures.append(sealed_error(which))
            self._stuck_by = PruneFault.SEALED
            return
        error = self._stuck_error(free)
        if is_nearly_full(free.percent, limits):
            self._stuck = error
        level = logging.WARNING if free.percent <= limits.min_percent else logging.DEBUG
        logger.log(level, "%s", error.message)

    def _stuck_error(self, free: FreeSpace) -> PolicyError:
        """Why there is no room, and what an administrator can do."""
        large = [h for h, v in self._verdicts().items() if v.blamed_since is not None]
        client = large[0] if large else "HOST"
        return PolicyError(
            f"free space is {free}, and no snapshot may be deleted: each is younger "
            "than a week, the newest of its host, kept until an administrator has "
            "looked, or could not be deleted",
            hint="a larger disc helps, clients that leave more out, or 'byteback-prune "
            f"--discard {client}', which drops what a client has sent since its last "
            "snapshot; see 'When nothing may be deleted' in byteback-prune(1)",
        )
