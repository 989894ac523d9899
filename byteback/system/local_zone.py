"""This machine's time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo


class LocalZone(tzinfo):
    """This machine's time zone with all its changes, past and future.

    ``datetime.now().astimezone().tzinfo`` is no use for another day: it is a fixed
    offset, today's.
    """

    def utcoffset(self, when: datetime | None) -> timedelta | None:
        """The offset in force at the wall-clock time ``when``."""
        if when is None:
            return None
        return when.replace(tzinfo=None).astimezone().utcoffset()

    def dst(self, _when: datetime | None) -> None:
        """Unknown: the offset holds it already."""
        return

    def tzname(self, when: datetime | None) -> str | None:
        """The zone's abbreviation at the wall-clock time ``when``."""
        return None if when is None else when.replace(tzinfo=None).astimezone().tzname()

    def fromutc(self, when: datetime) -> datetime:
        """The local time of ``when``, which is in UTC and has this zone on it."""
        local = when.replace(tzinfo=UTC).astimezone()
        return local.replace(tzinfo=self)
