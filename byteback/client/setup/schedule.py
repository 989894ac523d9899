"""Chooses what starts backups: the timer of systemd, cron, or nothing (D30).

Never two of them. A crontab line of the administrator's own is left in charge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from byteback.client.setup import schedule_files as written
from byteback.client.setup.schedule_files import SERVICE, TIMER, Places
from byteback.errors import UsageError, quote
from byteback.model.calendar import Calendar, NoCalendarError, parse_calendar
from byteback.system import crontab, host, process, systemd

PROGRAM = "byteback-backup"
ELSEWHERE = r"\s(-d|--destination)\b"  # a second server is beside any schedule
CRON_DAEMONS = ("cron", "crond", "fcron")


@dataclass(frozen=True)
class ScheduleRequest:
    """The administrator's wish: none, times, or no schedule."""

    is_off: bool = False
    at: Calendar | None = None
    at_own_time: bool = False  # "--schedule-at own": give up a time chosen earlier

    @property
    def is_explicit(self) -> bool:
        """True if a schedule was asked for in so many words."""
        return self.at is not None or self.at_own_time


@dataclass(frozen=True)
class Schedule:
    """The schedule that is in force."""

    state: str  # "on", "off", "own" (the administrator's), "disabled", "no cron"
    runner: str = ""  # "systemd" or "cron", if on
    at: Calendar | None = None  # None: this machine's own time after midnight
    own_lines: list[Path] = field(default_factory=list)  # crontabs that do it as well


def parse_wish(off: bool, at: str | None) -> ScheduleRequest:
    """The wish behind --no-schedule and --schedule-at. Raises UsageError."""
    if at is None:
        return ScheduleRequest(is_off=off)
    if off:
        raise UsageError("--no-schedule and --schedule-at contradict each other")
    if at == "own":
        return ScheduleRequest(at_own_time=True)
    try:
        return ScheduleRequest(at=parse_calendar(at))
    except NoCalendarError:
        raise UsageError(
            f"{quote(at)} is no time at which backups could start",
            hint="give --schedule-at a time such as 22:30, hourly, "
            "'Mon..Fri 08..18/2:00', or the word own",
        ) from None


def hold(wish: ScheduleRequest, places: Places | None = None) -> None:
    """Before a first set-up ends: have nothing start that is not to start."""
    if wish.is_off or (_own_lines() and not wish.is_explicit):
        _switch_off(places or Places(), wish)


def arrange(wish: ScheduleRequest, places: Places | None = None) -> Schedule:
    """Make the schedule be as wished; harmless when done again. Raises BytebackError.

    Without a wish a time chosen earlier stays, --no-schedule ends, and a timer that
    an administrator disabled stays disabled.
    """
    places = places or Places()
    own_lines = _own_lines()
    if wish.is_off or (own_lines and not wish.is_explicit):
        _switch_off(places, wish)
        return Schedule("off" if wish.is_off else "own", own_lines=own_lines)
    at = wish.at
    if at is None and not wish.at_own_time:
        at = written.read_chosen_time(places)
    is_packages = places.is_packaged and not places.has_own(places.own_units / TIMER)
    is_new = written.write_schedule(places, host.program_path(PROGRAM), at)
    is_new = written.switch_on(places) or is_new
    must_enable = wish.is_explicit or not is_packages
    if not host.is_systemd_running():
        return _leave_to_cron(places, at, own_lines, must_enable=must_enable)
    systemd.reload()
    if must_enable:
        systemd.enable(TIMER)
    if not systemd.is_enabled(TIMER):
        return Schedule("disabled", "systemd", at, own_lines)
    if is_new or not systemd.is_active(TIMER):
        systemd.start_timer_afresh(TIMER)
    return Schedule("on", "systemd", at, own_lines)


def defer_to_crontab(places: Places | None = None) -> list[Path]:
    """Leave backups to the administrator's crontabs, if any, and name these.

    For an upgrade from 0.4, which brought no schedule and left that to cron lines.
    """
    own_lines = _own_lines()
    if own_lines:
        written.switch_off(places or Places(), _because_of(own_lines))
    return own_lines


def _own_lines() -> list[Path]:
    return crontab.files_that_run(PROGRAM, without=ELSEWHERE)


def _because_of(own_lines: list[Path]) -> str:
    return f"Backups are started by {', '.join(map(str, own_lines))}."


def _switch_off(places: Places, wish: ScheduleRequest) -> None:
    why = "--no-schedule was given." if wish.is_off else _because_of(_own_lines())
    written.switch_off(places, why)
    if host.is_systemd_running():
        systemd.stop(TIMER)


def _leave_to_cron(
    places: Places, at: Calendar | None, own_lines: list[Path], *, must_enable: bool
) -> Schedule:
    """The timer is enabled all the same, should systemd be booted some day."""
    has_units = places.is_packaged or (places.own_units / SERVICE).exists()
    if must_enable and has_units and process.has_program("systemctl"):
        systemd.enable(TIMER)
    has_cron = any(process.has_program(daemon) for daemon in CRON_DAEMONS)
    return Schedule("on" if has_cron else "no cron", "cron", at, own_lines)
