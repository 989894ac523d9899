"""Takes read-only snapshots of ``current`` when a backup is complete."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from byteback.errors import (
    BusyError,
    NotSetUpError,
    PolicyError,
    RefusedError,
    ToolError,
    quote,
)
from byteback.model.snapshot import (
    CURRENT,
    Snapshot,
    format_snapshot_name,
    is_misdated,
)
from byteback.server.accounting import ledger
from byteback.server.snapshots import seal
from byteback.server.store import coverage
from byteback.server.store import state as host_state
from byteback.server.store.layout import DISCARDED, Store
from byteback.server.store.settings import ServerSettings
from byteback.system import files, privilege, process
from byteback.system.btrfs import commands
from byteback.wire.failures import Reason

# A client's --complete may come before the server has written up its transfer.
LOCK_WAIT_S = 30.0
TICK_MINUTES = 5  # between two runs of the pruning that byteback-setup-server schedules


def local_now() -> datetime:
    """The server's clock, in its own time zone."""
    return datetime.now(UTC).astimezone()


def take_snapshot(
    store: Store,
    client: str,
    settings: ServerSettings,
    *,
    incomplete: bool = False,
    files: int | None = None,
    size: int | None = None,
    now: Callable[[], datetime] = local_now,
) -> str:
    """Snapshot a host's ``current``, read-only, and return the snapshot's name.

    The ledger gets it with ``files``, the number that the client says it sent, the
    ``size`` of all its files in bytes, by its word alone, and whether it is
    ``incomplete``: by what the client says, or by how rsync ended here.
    Raises PolicyError if the newest one is too young, RefusedError if the last
    transfer is known to have been cut off, LockedError while one is running.
    """
    with store.lock_host(client, wait_s=LOCK_WAIT_S):
        current = store.current(client)
        if not commands.is_subvolume(current) or not _has_entries(current):
            raise NotSetUpError(
                f"the server has nothing of {quote(client)} to snapshot",
                hint="run byteback-backup on that machine first",
            )
        state = host_state.read(store, client)
        if state.is_cut_off:
            raise RefusedError(
                f"the last transfer of {quote(client)} did not come to its end",
                hint="run byteback-backup again: it resumes where it was cut off",
            )
        time = now()
        name = format_snapshot_name(time)
        _check_interval(store.snapshots(client), time, settings.snapshot_interval_hours)
        target = store.host_directory(client) / name
        # Recorded first: a kill in between must not leave a snapshot that lacks files
        # and does not say so.
        try:
            ledger.add_snapshot(
                store,
                client,
                name,
                incomplete=incomplete or state is host_state.Transfer.PARTIAL,
                files=files,
                size=size,
                sources=coverage.read_word(store, client),
            )
            snapshot_current(current, target)
        except BaseException:
            # Growth is judged from one snapshot to the next: a client that has its
            # own --complete ended, by another push, must not divide a backup so.
            if not target.exists():
                ledger.forget_snapshot(store, client, name)
            raise
        return name


def _has_entries(current: Path) -> bool:
    """True if there is any entry; names are not read, for a client sets how many."""
    _open_up(current)
    with os.scandir(current) as entries:
        return next(entries, None) is not None


def _open_up(current: Path) -> None:
    """See to it that we may enter: no client locks itself out for ever by a mode.

    And write: a read-only snapshot may have been put there by hand.
    """
    if not os.access(current, os.W_OK) and commands.is_subvolume(current):
        # A whole store may be read-only, or the subvolume not ours.
        with contextlib.suppress(ToolError):
            commands.set_read_only(current, False)
    mode = stat.S_IMODE(current.stat().st_mode)
    if mode & 0o700 != 0o700:
        current.chmod(mode | 0o700)


def snapshot_current(current: Path, target: Path) -> None:
    """Make ``target`` of ``current``, read-only. Raises BusyError on a full disc."""
    try:
        commands.take_snapshot(current, target)
    except ToolError as error:
        if commands.is_out_of_space(error):
            raise BusyError(
                "the server's disc is too full for a snapshot",
                hint="'byteback-prune --prune' makes room where it may, and says where "
                "it may not",
                reason=Reason.DISC_FULL,
            ) from None
        raise


def newest_name(
    store: Store, client: str, *, now: Callable[[], datetime] = local_now
) -> str | None:
    """The name of a host's newest snapshot.

    One that a wrong clock dated into the future is it only if there is no other.
    """
    snapshots = store.snapshots(client)
    if not snapshots:
        return None
    time = now()
    return max(snapshots, key=lambda s: (not is_misdated(s.time, time), s.time)).name


def ensure_current(store: Store, client: str) -> None:
    """Make a missing ``current`` again; the caller holds the host's lock.

    A set-up that was cut off leaves none, and an accident may take it away. It begins
    as a copy of the newest snapshot, so that little must be sent again.
    Raises NotSetUpError if the host has no directory here.
    """
    current = store.current(client)
    if current.is_dir():
        _open_up(current)
        if not commands.is_subvolume(current):
            _make_subvolume(current)
        return
    if not store.host_directory(client).is_dir():
        raise NotSetUpError(
            f"the server has no directory for {quote(client)}",
            hint="run byteback-setup-client on that machine again",
        )
    newest = newest_name(store, client)
    if newest is None:
        commands.create_subvolume(current)
        return
    source = store.host_directory(client) / newest
    if not seal.is_roots(source):
        commands.take_snapshot(source, current, read_only=False)
        return
    if not privilege.is_root_within_reach():
        raise BusyError(
            f"{CURRENT} of {quote(client)} is being made again",
            hint=f"that takes root up to {TICK_MINUTES} minutes, try again then",
        )
    from byteback.server.snapshots import sealing

    # Beside its place, for root makes it a client's in several steps.
    beside = current.with_name(DISCARDED)
    sealing.copy(store, client, newest, beside.name)
    beside.rename(current)


def _make_subvolume(current: Path) -> None:
    """Make one of the plain directory that was put at ``current``.

    No snapshot can be taken of that. What is in it stays, and is not sent again; its
    files are shared and not copied. Repair removes what a kill leaves in between.
    """
    beside = current.with_name(DISCARDED)
    discard_left(beside)
    commands.create_subvolume(beside)
    process.run(["cp", "--archive", "--reflink=auto", "--", f"{current}/.", beside])
    files.exchange(current, beside)
    discard_left(beside)


def discard_left(left: Path) -> None:
    """Delete a subvolume or a plain directory; nothing if there is none."""
    if commands.is_subvolume(left):
        commands.delete_subvolume(left)
    elif left.is_dir() and not left.is_symlink():
        process.run(["rm", "--recursive", "--force", "--", left])


def _check_interval(
    snapshots: list[Snapshot], time: datetime, interval_hours: float
) -> None:
    """Refuse a snapshot too close to another one, before *or after* it.

    By distance, not by order: after the clock has jumped forward and back, snapshots
    of the future must not keep new ones away for longer than the interval.
    """
    interval = max(timedelta(hours=interval_hours), timedelta(minutes=1))
    minute = time.astimezone(UTC).replace(second=0, microsecond=0)
    for snapshot in snapshots:
        if abs(snapshot.time - minute) < interval:
            raise PolicyError(
                f"too often: snapshot {snapshot.name} is younger than "
                f"{_format_interval(interval)}, so no other one was made",
                hint="current is up to date all the same; "
                "snapshot_interval_hours in server.toml sets the interval",
            )


def _format_interval(interval: timedelta) -> str:
    if interval < timedelta(hours=1):
        minutes = interval / timedelta(minutes=1)
        return "a minute" if minutes == 1 else f"{minutes:g} minutes"
    hours = interval / timedelta(hours=1)
    return "an hour" if hours == 1 else f"{hours:g} hours"
