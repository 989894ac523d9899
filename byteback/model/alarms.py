"""Which alarms a client and the store raise, and why: decisions alone.

Every kind has a row in byteback-status(1) that says what it means and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, takewhile

from byteback.errors import escape, quote
from byteback.model.status import (
    DAY_S,
    HOUR_S,
    Alarm,
    Backup,
    Client,
    Level,
    PruneFault,
    Result,
    StoreState,
)

REMEMBERED = 10  # intervals between good backups
ENOUGH = 3  # intervals that say how often a client usually comes
SLACK_S = 6 * HOUR_S
SHORTEST_S = 26 * HOUR_S  # a daily client with an hour of jitter on either side
CONSECUTIVE = 3  # failures, or incomplete backups, before there is an alarm
CLOCK_S = 15 * 60.0
SCRUB_DAYS = 45  # a monthly scrub, and two weeks
IDLE_S = HOUR_S  # pruning and sealing run every few minutes
HISTORY_DAYS = 7

KINDS = (
    *("stale", "failing", "incomplete", "larger-or-smaller", "never", "clock"),
    *("two-machines", "record", "not-mounted", "read-only", "device-errors"),
    *("scrub-errors", "scrub-overdue", "no-room", "pruning-stopped"),
    *("sealing-stopped", "short-history", "settings", "server-clock"),
    *("replica-behind", "replica-refused"),
    "report",  # of several servers alone
)

NO_ROOM = {  # after "free space is short, and"
    PruneFault.CLOCK: (
        "nothing is deleted by a clock that has jumped",
        (
            "set the clock right if it is wrong; if it is right, run byteback-prune "
            "--prune --confirm-clock"
        ),
    ),
    PruneFault.HELD: (
        "no history is deleted for a backup that is suddenly different",
        (
            "see which client it is in its own alarm: then byteback-prune --approve "
            "CLIENT, or --discard CLIENT"
        ),
    ),
    PruneFault.NOTHING: (
        "every snapshot is younger than a week or the newest of its client",
        (
            "make the store larger, or move a client elsewhere; byteback-prune "
            "--prune-force deletes one all the same"
        ),
    ),
    PruneFault.SEALED: (
        "only root can delete what is left: root's pruning does not run",
        "run byteback-setup-server, which schedules it, or sudo byteback-prune --prune",
    ),
    PruneFault.FAILED: (
        "snapshots could not be deleted",
        "run sudo byteback-prune --prune --verbose, and do what it says",
    ),
    PruneFault.WAITING: (
        "what was deleted has not given back its room for an hour",
        (
            "btrfs cleans up in its own time: dmesg says whether it fails, and btrfs "
            "balance status whether it is busy"
        ),
    ),
}


def usual_interval_s(good: Sequence[float]) -> float:
    """The median of the last ten intervals between good backups, in seconds.

    ``good`` is when they ended, oldest first. With less than three intervals it is the
    longest, and at least a day: an administrator may try a new client several times.
    """
    recent = good[-REMEMBERED - 1 :]
    gaps = [later - earlier for earlier, later in pairwise(recent)]
    if len(gaps) < ENOUGH:
        return max(DAY_S, *gaps, 0.0)
    ordered, middle = sorted(gaps), len(gaps) // 2
    # The median, without the module statistics: each backup would load it.
    return (ordered[middle] + ordered[~middle]) / 2


def next_expected(client: Client) -> float | None:
    """When the client's next backup is due; None if none is expected."""
    newest = client.newest_good
    if client.expect_hours == 0 or client.is_retired or newest is None:
        return None
    if client.expect_hours is not None:
        return newest + client.expect_hours * HOUR_S
    return newest + usual_interval_s(client.good)


def stale_at(client: Client) -> float | None:
    """When the client becomes stale if no good backup comes; None for never.

    That is twice its usual interval and six hours after its newest good backup, and no
    sooner than 26 hours. ``expect_hours`` of server.toml replaces all of this.
    """
    newest = client.newest_good
    if client.expect_hours == 0 or client.is_retired or newest is None:
        return None
    if client.expect_hours is not None:
        return newest + client.expect_hours * HOUR_S
    interval_s = usual_interval_s(client.good)
    return newest + max(2 * interval_s + SLACK_S, SHORTEST_S)


def client_alarms(client: Client, now: float) -> list[Alarm]:
    """All alarms of one client, the worst first."""
    found = list(_age_alarms(client, now))
    if not client.is_copy:  # the copy as a whole has alarms of its own
        found += _result_alarms(client)
    found += [
        Alarm(
            client.name,
            "larger-or-smaller",
            Level.CRITICAL,
            sentence,
            f"look at the client, then: byteback-prune --approve {client.name}, "
            f"or --discard {client.name}",
        )
        for sentence in client.suddenly
    ]
    found += _identity_alarms(client)
    return sorted(found, key=lambda alarm: alarm.level is not Level.CRITICAL)


def _age_alarms(client: Client, now: float) -> Iterator[Alarm]:
    newest = client.newest_good
    if newest is None:
        enrolled = client.enrolled if client.enrolled is not None else now
        is_expected = client.expect_hours != 0 and not client.is_retired
        if is_expected and now - enrolled > SHORTEST_S:
            yield Alarm(
                client.name,
                "never",
                Level.CRITICAL,
                f"it was enrolled {format_age(now - enrolled)} ago and has never "
                "finished a backup",
                "run byteback-backup --verbose on the client",
            )
        return
    due = stale_at(client)
    if due is not None and now > due:
        usual = usual_interval_s(client.good)
        yield Alarm(
            client.name,
            "stale",
            Level.CRITICAL,
            f"its newest good backup is {format_age(now - newest)} old; it usually "
            f"makes one every {format_age(usual)}",
            "run byteback-backup --verbose on the client; if it is switched off on "
            "purpose, set expect_hours for it in server.toml",
        )


def _result_alarms(client: Client) -> Iterator[Alarm]:
    ended = [b for b in client.backups if b.result is not Result.RUNNING]
    last = [backup.result for backup in ended[-CONSECUTIVE:]]
    if len(last) < CONSECUTIVE:
        return
    number = _trailing(ended, Result.FAILED)
    # One backup tries several times: its attempts are not yet a habit.
    is_lasting = number and ended[-1].started - ended[-number].started > SLACK_S
    if number >= CONSECUTIVE and is_lasting:
        yield Alarm(
            client.name,
            "failing",
            Level.WARNING,
            f"its last {number} transfers failed",
            "see journalctl -t byteback-receive here, and run byteback-backup "
            "--verbose on the client",
        )
    elif all(result is Result.PARTIAL for result in last):
        number = _trailing(ended, Result.PARTIAL)
        yield Alarm(
            client.name,
            "incomplete",
            Level.WARNING,
            f"its last {number} backups lack files that the client could not read",
            "byteback-backup --verbose on the client names them: mend them, or put "
            "them into /etc/byteback/excludes there",
        )


def _trailing(backups: Sequence[Backup], result: Result) -> int:
    """The number of backups at the end that have this result."""
    return sum(1 for _ in takewhile(lambda b: b.result is result, reversed(backups)))


def _identity_alarms(client: Client) -> Iterator[Alarm]:
    ahead_s = client.clock_ahead_s
    if ahead_s is not None and abs(ahead_s) > CLOCK_S:
        side = "ahead of" if ahead_s > 0 else "behind"
        yield Alarm(
            client.name,
            "clock",
            Level.WARNING,
            f"its clock is {format_age(abs(ahead_s))} {side} the server's",
            "set the clock that is wrong, and keep it right with NTP",
        )
    if client.machines > 1:
        yield Alarm(
            client.name,
            "two-machines",
            Level.CRITICAL,
            f"{client.machines} machines use its key",
            "give each its own name and key: byteback-setup-client --hostname NAME on "
            "the copy",
        )
    if client.record_failed:
        yield Alarm(
            client.name,
            "record",
            Level.CRITICAL,
            "a full comparison found changes that the client's record had missed",
            "please report it with the client's log; its backups compare everything "
            "until byteback-backup --full is run there by hand and finds nothing",
        )


def store_alarms(store: StoreState, now: float) -> list[Alarm]:
    """All alarms of the store itself, the worst first."""
    if not store.is_mounted:
        return [
            _of_store(
                "not-mounted",
                Level.CRITICAL,
                "the store is not mounted: no client can back up",
                "mount it, and look in the system log why it was not",
            )
        ]
    found = [
        *_disc_alarms(store, now),
        *_scrub_alarms(store, now),
        *_work_alarms(store, now),
        *_replica_alarms(store, now),
    ]
    return sorted(found, key=lambda alarm: alarm.level is not Level.CRITICAL)


def _disc_alarms(store: StoreState, now: float) -> Iterator[Alarm]:
    if store.is_read_only:
        yield _of_store(
            "read-only",
            Level.CRITICAL,
            "the store is read-only: no client can back up",
            "dmesg says why; btrfs makes a damaged file system read-only",
        )
    for line in store.device_errors:
        yield _of_store(
            "device-errors",
            Level.CRITICAL,
            f"the disc had errors: {line}",
            "check the disc and its cable, replace it with btrfs replace start, then "
            "reset the counters with btrfs device stats -z",
        )
    fault, since = store.prune_fault, store.prune_fault_since
    is_passing = fault is PruneFault.WAITING and since is not None
    if fault is not None and not (is_passing and now - (since or 0.0) <= IDLE_S):
        message, hint = NO_ROOM[fault]
        yield _of_store(
            "no-room", Level.CRITICAL, f"free space is short, and {message}", hint
        )
    if store.settings_fault is not None:
        yield _of_store(
            "settings",
            Level.WARNING,
            store.settings_fault,
            "mend /etc/byteback/server.toml",
        )
    if store.clock_fault is not None:
        yield _of_store(
            "server-clock",
            Level.CRITICAL,
            store.clock_fault,
            "set it right if it is wrong; if it is right, say so: byteback-prune "
            "--prune --confirm-clock. Until then no snapshot is deleted",
        )


def _scrub_alarms(store: StoreState, now: float) -> Iterator[Alarm]:
    if store.scrub_errors:
        yield _of_store(
            "scrub-errors",
            Level.CRITICAL,
            f"the last scrub found {store.scrub_errors} errors",
            "btrfs scrub status and dmesg name the files; restore or discard them",
        )
    since = max((store.scrub_finished or 0.0, store.in_use_since or 0.0))
    if since and now - since > SCRUB_DAYS * DAY_S:
        yield _of_store(
            "scrub-overdue",
            Level.WARNING,
            f"no scrub has checked the whole store for {format_age(now - since)}",
            "run sudo byteback-status --scrub; byteback-scrub.timer should do so "
            "every month",
        )


def _work_alarms(store: StoreState, now: float) -> Iterator[Alarm]:
    # One that never ran is missed from the first backup on.
    pruned = store.pruned if store.pruned is not None else store.in_use_since
    if pruned is not None and now - pruned > IDLE_S:
        yield _of_store(
            "pruning-stopped",
            Level.CRITICAL,
            f"pruning has not finished a run for {format_age(now - pruned)}",
            "see systemctl status byteback-prune.timer, or cron's log; "
            "byteback-setup-server schedules it",
        )
    is_late = store.sealed is not None and now - store.sealed > IDLE_S
    if store.seals and is_late and store.sealed is not None:
        yield _of_store(
            "sealing-stopped",
            Level.CRITICAL,
            f"no run has sealed snapshots for {format_age(now - store.sealed)}",
            "sealing is part of byteback-prune --prune as root: see its log",
        )
    oldest = store.oldest_snapshot
    is_old_enough = (
        store.in_use_since is not None
        and now - store.in_use_since > HISTORY_DAYS * DAY_S
    )
    if is_old_enough and oldest is not None and now - oldest < HISTORY_DAYS * DAY_S:
        yield _of_store(
            "short-history",
            Level.WARNING,
            f"history reaches back only {format_age(now - oldest)}",
            "the store is too small for its clients: make it larger, or move some",
        )


def _replica_alarms(store: StoreState, now: float) -> Iterator[Alarm]:
    for one in store.replicas:
        since = one.done or one.began or one.tried
        told = f": {escape(one.problems[0])}" if one.problems else ""
        if now - since > SHORTEST_S:
            verb = "last up to date" if one.done else "set up"
            left = f", and {one.missing} snapshots are missing" if one.missing else ""
            yield _of_store(
                "replica-behind",
                Level.CRITICAL,
                f"the copy of the server {quote(one.source)} was {verb} "
                f"{format_age(now - since)} ago{left}{told}",
                "run sudo byteback-replicate --verbose here",
            )
        elif told:
            yield _of_store(
                "replica-refused",
                Level.WARNING,
                f"not all that the server {quote(one.source)} has was brought{told}",
                "run sudo byteback-replicate --dry-run here, which names all of it",
            )


def _of_store(kind: str, level: Level, message: str, hint: str) -> Alarm:
    return Alarm("", kind, level, message, hint)


def format_age(seconds: float) -> str:
    """``3 days``, ``26 hours``, ``5 minutes``: whole numbers of the fitting unit."""
    for unit, size, least in (
        ("day", DAY_S, 2 * DAY_S),
        ("hour", HOUR_S, 2 * HOUR_S),
        ("minute", 60.0, 60.0),
    ):
        if seconds >= least:
            number = int(seconds // size)
            return f"{number} {unit}" if number == 1 else f"{number} {unit}s"
    return "less than a minute"
