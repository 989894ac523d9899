"""The state of clients and of the store, as frozen values.

Times are seconds since 1970, sizes bytes. None stands for what is not known: without a
ledger only the snapshots tell something.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


class Result(StrEnum):
    """The end of one backup."""

    WHOLE = "whole"
    PARTIAL = "partial"  # finished, but the client could not read some files
    FAILED = "failed"
    RUNNING = "running"

    @property
    def is_good(self) -> bool:
        """The backup is there and can be restored."""
        return self in GOOD


GOOD = (Result.WHOLE, Result.PARTIAL)


class Backup(NamedTuple):
    """One transfer to the server, and the snapshot that was made of it."""

    started: float
    ended: float | None
    result: Result
    received: int | None = None  # bytes that the server's rsync read
    written: int | None = None  # bytes that it wrote
    taken: int | None = None  # bytes by which the store had less room afterwards
    files: int | None = None  # as the client said
    snapshot: str | None = None
    is_full: bool | None = None  # every file was compared

    @property
    def duration_s(self) -> float | None:
        """None while it runs, and where its end is unknown."""
        return None if self.ended is None else self.ended - self.started


class Snapshots(NamedTuple):
    """A client's snapshots, and the times of them all where they are needed."""

    number: int = 0
    oldest: float | None = None
    newest: float | None = None
    times: tuple[float, ...] = ()  # oldest first; empty where the ledger tells enough
    names: tuple[str, ...] = ()  # of the snapshots of those times


NO_SNAPSHOTS = Snapshots()


class _ClientFields(NamedTuple):
    name: str
    backups: tuple[Backup, ...] = ()
    snapshots: Snapshots = NO_SNAPSHOTS
    enrolled: float | None = None
    expect_hours: float | None = None  # server.toml's word for this client; 0: never
    current_bytes: int | None = None
    history_bytes: int | None = None  # would come back if all its history went
    suddenly: tuple[str, ...] = ()  # sentences about a backup that is very different
    machines: int = 1  # with this client's key, as far as is known
    clock_ahead_s: float | None = None  # the client's clock against the server's
    record_failed: bool = False  # a full comparison found what its record had missed
    is_retired: bool = False
    is_copy: bool = False  # its snapshots are fetched from another server


class Client(_ClientFields):
    """One client: its backups, oldest first, and what it takes."""

    @cached_property
    def good(self) -> tuple[float, ...]:
        """When its good backups ended, oldest first; by its snapshots if need be.

        Of a copy the transfers tell when it was fetched, and the snapshots when made.
        """
        if self.is_copy:
            return self.snapshots.times
        ends = [
            backup.ended
            for backup in self.backups
            if backup.result in GOOD and backup.ended is not None
        ]
        return tuple(sorted(ends)) or self.snapshots.times

    @cached_property
    def newest_good(self) -> float | None:
        """When its newest good backup ended."""
        # A ledger that was lost may know less than the snapshots do.
        known = [*self.good[-1:], self.snapshots.newest]
        return max((time for time in known if time is not None), default=None)


class PruneFault(StrEnum):
    """Why room stays short, as the last run of pruning found."""

    CLOCK = "clock"  # the server's has jumped, and nothing is deleted by it
    HELD = "held"  # for a client whose backups are suddenly larger or smaller
    NOTHING = "nothing"  # all are younger than a week, or the newest of their client
    SEALED = "sealed"  # root alone deletes those, and the run was not root's
    FAILED = "failed"  # a deletion failed
    WAITING = "waiting"  # no room is back yet, or no backups are measured yet


class Replica(NamedTuple):
    """The last round in which a first server was fetched from."""

    source: str
    tried: float
    done: float | None = None  # when a round last brought all that there was
    began: float | None = None  # when the first round of all began
    missing: int = 0  # snapshots that are there and not here
    problems: tuple[str, ...] = ()


class StoreState(NamedTuple):
    """The store itself. A field that is None could not be found out."""

    is_mounted: bool = True
    is_read_only: bool = False
    free_bytes: int | None = None
    total_bytes: int | None = None
    min_percent: float = 5.0
    device_errors: tuple[str, ...] = ()  # lines like "/dev/sdb: 3 write errors"
    scrub_finished: float | None = None
    scrub_errors: int | None = None
    in_use_since: float | None = None  # the first transfer that the ledger knows
    pruned: float | None = None  # the last run of pruning that came to its end
    sealed: float | None = None  # the same of sealing; None where it is off
    seals: bool = False
    prune_fault: PruneFault | None = None  # None where there is room
    prune_fault_since: float | None = None
    settings_fault: str | None = None
    clock_fault: str | None = None
    oldest_snapshot: float | None = None
    replicas: tuple[Replica, ...] = ()  # the first servers of which this is a copy


class FreeReading(NamedTuple):
    """Free space at one moment, bytes."""

    time: float  # seconds since 1970
    free: int
    total: int


class Level(StrEnum):
    """The severity of an alarm, in a monitoring system's words."""

    WARNING = "warning"
    CRITICAL = "critical"


class Alarm(NamedTuple):
    """One thing that is wrong, in words for an administrator."""

    client: str  # "" for the store itself
    kind: str  # stable: programs and byteback-status(1) know it by this
    level: Level
    message: str
    hint: str


class Server(NamedTuple):
    """One server in a report of several."""

    name: str
    time: float  # when it told
    store: StoreState
    clients: int
    alarms: int


class Report(NamedTuple):
    """The answer of byteback-status: the store, its clients, and what is wrong.

    Of several servers' stores it has the sums, and clients are SERVER/CLIENT.
    """

    server: str  # this machine's name
    version: str  # byteback's
    time: float
    store: StoreState
    clients: tuple[Client, ...]
    alarms: tuple[Alarm, ...]
    servers: tuple[Server, ...] = ()  # where there are several

    def alarms_of(self, client: str) -> tuple[Alarm, ...]:
        """The alarms of one client, or of the store itself for ``""``."""
        return tuple(alarm for alarm in self.alarms if alarm.client == client)

    def alarm_kinds(self) -> dict[str, set[str]]:
        """The kinds of alarms of each client that has one; of the store for ``""``."""
        found: dict[str, set[str]] = {}
        for alarm in self.alarms:
            found.setdefault(alarm.client, set()).add(alarm.kind)
        return found

    @property
    def worst(self) -> Level | None:
        """The worst level among the alarms; None where all is well."""
        levels = {alarm.level for alarm in self.alarms}
        return next((level for level in reversed(Level) if level in levels), None)
