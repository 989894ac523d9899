"""Judges whether the server's clock has jumped, by what else tells the time.

Pruning deletes what is older than a week. With a clock a year ahead everything is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
MOST_S = DAY_S  # what a clock may differ by
EVEN_S = HOUR_S  # by how much a clock may be corrected while it is on probation
KEPT_S = HOUR_S  # readings are recorded as often as that


class Reading(NamedTuple):
    """The clock, and what no change of it changes."""

    wall: float  # seconds since 1970
    uptime: float  # seconds that the machine has been up, asleep or not
    boot: str  # which start of the machine that is


class Record(NamedTuple):
    """The memory between two looks at the clock."""

    trusted: Reading | None = None  # the last one that was right
    doubted: Reading | None = None  # the last one since a jump
    doubted_s: float = 0.0  # for how long the clock has gone evenly since the jump


class Judgement(NamedTuple):
    """How far the clock has jumped, and what to remember of it."""

    jump_s: float | None  # None: it is trusted; negative: it was set back
    record: Record


def judge(record: Record, now: Reading, evidence: Iterable[float] = ()) -> Judgement:
    """Judge a reading by the last one, and without one by ``evidence``.

    Evidence are times, in seconds since 1970, at which something was written: the
    newest that has passed counts. A clock that jumped is trusted again after a day in
    which it did not jump any more.
    """
    trusted = record.trusted or _by_evidence(now, evidence)
    jump = _jump(trusted, now)
    if abs(jump) <= MOST_S:
        return Judgement(None, confirm(record, now))
    evenly = 0.0
    if record.doubted is not None:
        step = now.wall - record.doubted.wall
        passed = _passed(record.doubted, now)
        if passed is None:  # another start, in which the clock may be slow to be set
            passed = step if 0 <= step <= MOST_S else None
        if passed is not None and abs(step - passed) <= EVEN_S:
            evenly = record.doubted_s + passed
    if evenly >= DAY_S:
        return Judgement(None, confirm(record, now))
    return Judgement(jump, Record(trusted, now, evenly))


def confirm(record: Record, now: Reading) -> Record:
    """The new memory after a clock that is right.

    The old record while it is recent: it need not be written anew.
    """
    last = record.trusted
    if record.doubted is None and last is not None:
        passed = _passed(last, now)
        if passed is not None and passed < KEPT_S:
            return record
    return Record(now)


def _by_evidence(now: Reading, evidence: Iterable[float]) -> Reading:
    """A reading of a clock that is as late as the newest thing.

    It is kept: what is written from now on is dated by the clock that is in doubt.
    """
    newest = max((time for time in evidence if time <= now.wall), default=now.wall)
    return now._replace(wall=newest)


def _jump(trusted: Reading, now: Reading) -> float:
    # For how long the machine was off between two starts is not known.
    return now.wall - trusted.wall - (_passed(trusted, now) or 0.0)


def _passed(before: Reading, now: Reading) -> float | None:
    """The seconds between two readings of one start of the machine; else None."""
    passed = now.uptime - before.uptime
    # A container may be started anew, with an uptime of its own, by the same kernel.
    return passed if before.boot == now.boot and passed >= 0 else None


def format_record(record: Record) -> str:
    """A record as text; parse_record reads it."""
    lines = []
    for word, reading in (("trusted", record.trusted), ("doubted", record.doubted)):
        if reading is not None:
            lines.append(
                f"{word} {reading.wall:.0f} {reading.uptime:.0f} {reading.boot}"
            )
    if record.doubted is not None:
        lines.append(f"evenly {record.doubted_s:.0f}")
    return "".join(f"{line}\n" for line in lines)


def parse_record(text: str) -> Record:
    """The record that ``text`` holds; an empty one if it is damaged."""
    found: dict[str, Reading] = {}
    evenly = 0.0
    try:
        for line in text.splitlines():
            word, *rest = line.split()
            if word == "evenly":
                evenly = float(rest[0])
            else:
                found[word] = Reading(float(rest[0]), float(rest[1]), rest[2])
    except (ValueError, IndexError):
        return Record()
    return Record(found.get("trusted"), found.get("doubted"), evenly)
