"""Times at which backups start, in words that systemd and cron both understand.

The words are systemd's (systemd.time(7), CALENDAR EVENTS), without dates, seconds and
time zones, which cron has no like of.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LONG_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday")
_NAMES = {name.lower(): number for number, name in enumerate(_DAYS)} | {
    name: number for number, name in enumerate((*_LONG_DAYS, "saturday", "sunday"))
}
HOURS, MINUTES = 24, 60
MAX_LENGTH = 100  # characters
# A minute that each machine has for itself stands where none is said.
_SHORT = {"hourly": "*", "daily": "0", "weekly": "0"}
_ITEM = re.compile(r"(?:(\d{1,2})(?:\.\.(\d{1,2}))?|(\*))(?:/(\d{1,2}))?", re.ASCII)


class NoCalendarError(ValueError):
    """The text is no time that can be had from both systemd and cron."""


@dataclass(frozen=True)
class Calendar:
    """The moments at which something starts: on some days, at some hours, minutes."""

    text: str  # as it was given
    days: tuple[int, ...] = ()  # 0 is Monday; none: all
    hours: tuple[int, ...] = ()  # none: all
    minutes: tuple[int, ...] = ()  # none: one of this machine's own

    def format_systemd(self, own_minute: int) -> str:
        """The value of OnCalendar=."""
        days = ",".join(_DAYS[day] for day in self.days)
        hours = ",".join(f"{hour:02}" for hour in self.hours) or "*"
        minutes = ",".join(f"{minute:02}" for minute in self._minutes(own_minute))
        return f"{days} *-*-* {hours}:{minutes}".strip()

    def format_cron(self, own_minute: int) -> str:
        """The five fields of crontab(5), of which Monday is 1 and Sunday 0."""
        minutes = ",".join(map(str, self._minutes(own_minute)))
        hours = ",".join(map(str, self.hours)) or "*"
        days = ",".join(str((day + 1) % 7) for day in self.days) or "*"
        return f"{minutes} {hours} * * {days}"

    def _minutes(self, own_minute: int) -> tuple[int, ...]:
        return self.minutes or (own_minute % MINUTES,)

    @property
    def is_daily(self) -> bool:
        """True if it is one time on every day."""
        return not self.days and len(self.hours) == 1 and len(self.minutes) == 1


def parse_calendar(text: str) -> Calendar:
    """Read ``text``: "22:30", "hourly", "Mon..Fri 08..18/2:00". Raises NoCalendarError.

    ``*:0/15`` is every quarter of an hour.
    """
    if len(text) > MAX_LENGTH or text != text.strip() or not text.isprintable():
        raise NoCalendarError
    if text in _SHORT:
        hours = _numbers(_SHORT[text], HOURS)
        return Calendar(text, (0,) if text == "weekly" else (), hours)
    *before, clock = text.split(" ")
    if before and before[-1] in ("*-*-*", ""):
        before = before[:-1]
    if len(before) > 1 or clock.count(":") != 1:
        raise NoCalendarError
    hours_text, minutes_text = clock.split(":")
    days = _days(before[0]) if before else ()
    hours = _numbers(hours_text, HOURS)
    minutes = _numbers(minutes_text, MINUTES) or tuple(range(MINUTES))
    return Calendar(text, days, hours, minutes)


def _days(text: str) -> tuple[int, ...]:
    found: set[int] = set()
    for item in text.lower().split(","):
        first, dots, last = item.partition("..")
        if first not in _NAMES or (dots and last not in _NAMES):
            raise NoCalendarError
        start = _NAMES[first]
        end = _NAMES[last] if dots else start
        if end < start:
            raise NoCalendarError
        found.update(range(start, end + 1))
    return tuple(sorted(found)) if len(found) < len(_DAYS) else ()


def _numbers(text: str, count: int) -> tuple[int, ...]:
    """The numbers below ``count`` that a list names; none for all of them."""
    found: set[int] = set()
    for item in text.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise NoCalendarError
        first, last, star, step = match.groups()
        start, every = int(first or 0), int(step or 1)
        end = int(last) if last else count - 1 if star or step else start
        if not (start <= end < count and every > 0):
            raise NoCalendarError
        found.update(range(start, end + 1, every))
    return tuple(sorted(found)) if len(found) < count else ()
