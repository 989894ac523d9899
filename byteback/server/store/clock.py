"""Looks whether this machine's clock has jumped, before anything goes by age (D47).

A reading of the clock is kept outside of the store, where root makes it, else in the
store's state. It is compared with the machine's uptime, which no change of the clock
changes. Without a reading, the newest thing in the store says what time it has been.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from byteback.errors import PolicyError
from byteback.model import clock_jump
from byteback.model.clock_jump import DAY_S, HOUR_S, Judgement, Reading, Record
from byteback.server.store.layout import Store
from byteback.server.store.state import BOOT_ID
from byteback.system import files, privilege
from byteback.system.btrfs import subvolume
from byteback.system.diary import Diary

logger = Diary(__name__)

PATH = Path("/var/lib/byteback/clock")
UPTIME = Path("/proc/uptime")
MAX_BYTES = 1000
ENOUGH = 3  # snapshots of one client, for its newest


def look(
    store: Store, now: float, also: Iterable[float] = (), *, confirm: bool = False
) -> float | None:
    """How far the clock has jumped, in seconds, ahead or (negative) back; None if not.

    ``also`` are times at which something was recorded. What was seen is recorded for
    the next look, once an hour. With ``confirm`` the clock is right, for an
    administrator says so.
    """
    record, place = _read_record(store), _place(store)
    reading = _reading(now)
    if reading is None:
        return None
    found = clock_jump.judge(record, reading, _evidence(store, record, now, also))
    if confirm:
        found = Judgement(None, clock_jump.confirm(Record(), reading))
    elif found.jump_s is not None:
        logger.warning("%s", describe(found.jump_s))
    if found.record != record and _is_worth_writing(record, found.record):
        _write_record(place, found.record)
    return found.jump_s


def fault(store: Store, now: float, also: Iterable[float] = ()) -> str | None:
    """Describe a clock that is wrong, for byteback-status; nothing is recorded."""
    record, reading = _read_record(store), _reading(now)
    if reading is None:
        return None
    jump = clock_jump.judge(record, reading, _evidence(store, record, now, also)).jump_s
    return None if jump is None else describe(jump)


def describe(jump_s: float) -> str:
    """A jump in words."""
    size = abs(jump_s)
    far = (
        f"{size / DAY_S:.0f} days" if size > 2 * DAY_S else f"{size / HOUR_S:.0f} hours"
    )
    way = "ahead" if jump_s > 0 else "back"
    return f"this machine's clock has jumped {way} by {far}"


def refusal(jump_s: float) -> PolicyError:
    """Why nothing is deleted, and what an administrator can do."""
    return PolicyError(
        f"no snapshot is deleted: {describe(jump_s)}",
        hint="if it is wrong, set it right. If it is right, say so: 'byteback-prune "
        "--prune --confirm-clock', or wait for a day in which it goes evenly",
    )


def _reading(now: float) -> Reading | None:
    """The clock as it is; None where the kernel does not tell how long it has run.

    From the file, which no library that changes the clock of a program changes, too.
    """
    try:
        uptime = float(UPTIME.read_text(encoding="ascii").split()[0])
        boot = BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError, IndexError):
        return None
    return Reading(now, uptime, boot or "-")


def _evidence(
    store: Store, record: Record, now: float, also: Iterable[float]
) -> Iterator[float]:
    """When things in the store were made, as far as names and btrfs tell."""
    if record.trusted is not None:
        return
    with contextlib.suppress(OSError):
        for client in store.hosts():
            yield from _newest_times(store, client, now)
    yield from also
    with contextlib.suppress(OSError):
        fd = os.open(store.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            found = subvolume.read(fd)
        finally:
            os.close(fd)
        if found is not None:
            yield found.changed_at


def _newest_times(store: Store, client: str, now: float) -> Iterator[float]:
    """The times of a client's snapshots, the newest first, until some have passed.

    Names sort as their times do, but for the few hours by which zones differ.
    """
    past = 0
    for name in reversed(store.trees(client)):
        for snapshot in store.dated(client, [name]):
            time = snapshot.time.timestamp()
            past += time <= now
            yield time
        if past == ENOUGH:
            return


def _place(store: Store) -> Path:
    """Where the record is: root's, if root looks at the clock or ever has."""
    if privilege.is_root_within_reach() or PATH.exists():
        return PATH
    return store.state / PATH.name


def _read_record(store: Store) -> Record:
    try:
        text = files.read_regular(_place(store), MAX_BYTES).decode("ascii")
        return clock_jump.parse_record(text)
    except (OSError, UnicodeDecodeError):
        return Record()


def _is_worth_writing(before: Record, after: Record) -> bool:
    """True if the clock's state has changed, or an hour has passed in it."""
    if before.doubted is None or after.doubted is None:
        return True
    return after.doubted_s < before.doubted_s or (
        after.doubted_s - before.doubted_s >= clock_jump.KEPT_S
    )


def _write_record(place: Path, record: Record) -> None:
    """Keep a record. Where that fails, a later run judges by the one before."""
    with contextlib.suppress(OSError), privilege.raised():
        if place == PATH:
            if os.geteuid() != 0:
                return
            place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        text = clock_jump.format_record(record)
        files.write_atomically(place, text.encode("ascii"))
