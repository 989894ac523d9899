"""Finds the programs that cron runs on this machine, as far as files tell."""

from __future__ import annotations

import re
from pathlib import Path

PLACES = ("/etc/crontab", "/etc/cron.d/*", "/var/spool/cron/crontabs/*")
GUARD = "[ -d /run/systemd/system ]"  # in each line of a file that comes packaged
# Commands that name a program without starting it, as monitoring does.
LOOKS_AT = re.compile(r"\b(pgrep|pidof|pkill|killall|grep|journalctl|logger|command)\b")


def files_that_run(program: str, *, without: str = r"(?!)") -> list[Path]:
    """The crontabs with a line for ``program`` that no package of byteback's brought.

    Commands with a match of ``without``, a regular expression, do not count. cron takes
    names with dots in /etc/cron.d for backups, and so they are left out.
    """
    places = [pattern.rpartition("/") for pattern in PLACES]
    return [
        path
        for directory, _, name in places
        for path in sorted(Path(directory).glob(name))
        if "." not in path.name and _runs(path, program, without)
    ]


def _runs(path: Path, program: str, without: str) -> bool:
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return False
    word = re.compile(rf"(^|[\s/]){re.escape(program)}($|\s)")
    return any(
        word.search(command) is not None
        and not LOOKS_AT.search(command)
        and not re.search(without, command)
        for line in text.splitlines()
        if not line.lstrip().startswith("#") and GUARD not in line
        for command in re.split(r"[;&|(){}]", line)
    )
