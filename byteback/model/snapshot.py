"""Snapshot names: the server's local time to the minute, with its zone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple

NAME_FORMAT = "%Y-%m-%dT%H:%M%z"
CURRENT = "current"
MISDATED_BY = timedelta(days=1)  # two clocks, or a clock set right, may differ by less

# Strict on purpose: a lenient parser takes "march" or "restore-2015-01-01" for a
# date, and what parses as a snapshot may one day be pruned. Before May 2014 the old
# tool wrote no zone.
# Newer versions of Python take 24:00 for the next day's midnight.
_PATTERN = re.compile(
    r"\d{4}-\d{2}-\d{2}T(?:[01]\d|2[0-3]):\d{2}(?:[+-]\d{4})?", re.ASCII
)


class Snapshot(NamedTuple):
    """One snapshot of one host; ``time`` is aware, and in UTC."""

    host: str
    time: datetime
    name: str

    @property
    def path(self) -> str:
        """``HOST/NAME``, as listings show it."""
        return f"{self.host}/{self.name}"


def format_snapshot_name(time: datetime) -> str:
    """The name for a snapshot taken at ``time``, which must be aware."""
    return time.strftime(NAME_FORMAT)


def parse_snapshot_name(name: str, local_zone: tzinfo = UTC) -> datetime | None:
    """The time in a snapshot's name, in UTC, or None if it is no such name.

    A name without a zone is taken to be in ``local_zone``.
    """
    if _PATTERN.fullmatch(name) is None:
        return None
    try:
        time = datetime.fromisoformat(name)
        if time.tzinfo is None:
            time = time.replace(tzinfo=local_zone)
        return time.astimezone(UTC)
    except (ValueError, OverflowError):  # the 30th of February, the year 0000
        return None


def snapshot_names(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that parse_snapshot_name reads, in a tenth of its time.

    And those that it would read but for an impossible day.
    """
    return list(filter(_PATTERN.fullmatch, names))


def is_misdated(time: datetime, now: datetime) -> bool:
    """True if a snapshot's name is of a future that only a wrong clock can have seen.

    When it was really made is unknown, but it was before ``now``: nothing dated so
    may count as the newest.
    """
    return time > now + MISDATED_BY
