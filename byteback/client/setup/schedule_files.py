"""The files that make the daily backup start: units, a drop-in, a file for cron.

All of them are written wherever byteback-setup-client runs, so that a machine may be
set up before it is booted with one init system or the other. Each steps back for the
others: cron's for systemd, and the package's cron file for the one written here.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from byteback.client.settings import DIRECTORY, Files, read_text
from byteback.errors import BytebackError, quote
from byteback.model.calendar import Calendar, NoCalendarError, parse_calendar
from byteback.system import files

TIMER = "byteback-backup.timer"
SERVICE = "byteback-backup.service"
FAILURE = "byteback-backup-failure.service"  # which that one starts
MARK = "# Written by byteback-setup-client"
SPREAD_MIN = 240  # after midnight, over which machines without a wish are spread
_TEMPLATES = Path(__file__).parent / "units"
_PACKAGED_PROGRAM = "/usr/bin/byteback-backup"
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9/._+@:,-]+")
_CHOSEN = re.compile(rf"^{MARK} --schedule-at (.{{1,100}}), which also", re.MULTILINE)


@dataclass(frozen=True)
class Places:
    """The paths of all these files. Only tests use others than the defaults."""

    directory: Path = DIRECTORY
    cron_file: Path = Path("/etc/cron.d/byteback-schedule")
    own_units: Path = Path("/etc/systemd/system")
    packaged_units: tuple[Path, ...] = (
        Path("/usr/lib/systemd/system"),
        Path("/lib/systemd/system"),
    )

    @property
    def switched_off(self) -> Path:
        """Nothing runs by itself while this is there: the timer and cron look."""
        return self.directory / "no-schedule"

    @property
    def drop_in(self) -> Path:
        """Changes the timer's time; a drop-in of "systemctl edit" wins over it."""
        return self.own_units / f"{TIMER}.d" / "byteback-setup-client.conf"

    @property
    def is_packaged(self) -> bool:
        """True if a package brought a schedule."""
        return any((units / TIMER).exists() for units in self.packaged_units)

    def has_own(self, path: Path) -> bool:
        """True if a file is there that this module wrote."""
        return (read_text(path) or "").startswith(MARK)


def read_chosen_time(places: Places) -> Calendar | None:
    """The times that --schedule-at has set earlier."""
    match = _CHOSEN.search(read_text(places.cron_file) or "")
    if match is None:
        return None
    with contextlib.suppress(NoCalendarError):
        return parse_calendar(match[1])
    return None


def switch_off(places: Places, why: str) -> bool:
    """See to it that nothing starts from now on; True if that is new."""
    text = f"{MARK}, which takes this away when it is run again.\n{why}\n"
    return _write(places.switched_off, text)


def switch_on(places: Places) -> bool:
    """Undo switch_off; True if there was something to undo."""
    return _remove(places.switched_off)


def write_schedule(places: Places, program: Path, at: Calendar | None) -> bool:
    """Make ``program`` start at ``at``, or every day at this machine's own time.

    True if that changed anything. What a package brings is used, and what was written
    here before the package came is removed. Raises BytebackError.
    """
    wanted = _wanted_files(places, program, at)
    changed = [_write(path, text) for path, text in wanted.items()]
    paths = [places.own_units / name for name in (SERVICE, FAILURE, TIMER)]
    paths += [places.drop_in, places.cron_file]
    old = [path for path in paths if path not in wanted and places.has_own(path)]
    changed += [_remove(path) for path in old]
    return any(changed)


def _wanted_files(
    places: Places, program: Path, at: Calendar | None
) -> dict[Path, str]:
    wanted: dict[Path, str] = {}
    if not places.is_packaged and places.own_units.is_dir():
        for name in (SERVICE, FAILURE, TIMER):
            path = places.own_units / name
            # Else it is the administrator's.
            if places.has_own(path) or not path.exists():
                wanted[path] = format_unit(name, program)
    if at is not None and places.own_units.is_dir():
        wanted[places.drop_in] = format_drop_in(at, own_minute(places))
    if at is not None or not places.is_packaged:
        wanted[places.cron_file] = format_cron(program, at, own_minute(places))
    return wanted


def format_unit(name: str, program: Path) -> str:
    """A unit as packages bring it, for a program at another place."""
    text = (_TEMPLATES / name).read_text(encoding="ascii")
    text = text.replace(_PACKAGED_PROGRAM, _plain(program))
    return f"{MARK}, which replaces it when it is run again.\n{text}"


def format_drop_in(at: Calendar, minute: int) -> str:
    """The drop-in that gives the timer other times."""
    return (
        f"{MARK} --schedule-at {at.text}, which also changes it.\n"
        "[Timer]\n"
        "OnCalendar=\n"
        f"OnCalendar={at.format_systemd(minute)}\n"
        "RandomizedDelaySec=0\n"
    )


def format_cron(program: Path, at: Calendar | None, minute: int) -> str:
    """The file for cron, which says nothing where systemd runs.

    Without ``at`` it is ``minute`` minutes after midnight.
    """
    how = "" if at is None else f" --schedule-at {at.text}"
    hour, minute_of_it = divmod(minute, 60)
    when = f"{minute_of_it} {hour} * * *" if at is None else at.format_cron(minute)
    path = _plain(program)
    return (
        f"{MARK}{how}, which also changes it.\n"
        f"# The backup where systemd does not run; elsewhere {TIMER} does it.\n"
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
        f"{when} root [ -d /run/systemd/system ] "
        "|| [ ! -e /etc/byteback/destination ] || [ -e /etc/byteback/no-schedule ] "
        f"|| [ ! -x {path} ] || {{ umask 077; ionice -c 3 nice {path}; }}\n"
    )


def own_minute(places: Places) -> int:
    """This machine's own minute after midnight, always the same."""
    key = read_text(Files(places.directory).key.with_suffix(".pub")) or ""
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:4], "big") % SPREAD_MIN


def _plain(program: Path) -> str:
    """A path that means itself to systemd, a shell and cron."""
    if not _PLAIN_PATH.fullmatch(str(program)):
        raise BytebackError(
            f"cannot write {quote(str(program))} into a schedule: "
            "its name has characters that are special there",
            hint="install byteback at another place, or give --no-schedule",
        )
    return str(program)


def _write(path: Path, text: str) -> bool:
    try:
        former = read_text(path)
        if former == text:
            return False
        if former is not None and not former.startswith(MARK):
            raise BytebackError(
                f"{quote(str(path))} is in the way: byteback-setup-client did not "
                "write it",
                hint="move it to another name, or give --no-schedule",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, text.encode())
        path.chmod(0o644)  # cron ignores a file that others could write to
    except OSError as error:
        raise BytebackError(
            f"cannot write {quote(str(path))}: {error.strerror}",
            hint="make that possible and run this again, or give --no-schedule",
        ) from None
    return True


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise BytebackError(
            f"cannot remove {quote(str(path))}: {error.strerror}"
        ) from None
    return True
