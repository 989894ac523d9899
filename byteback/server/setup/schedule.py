"""The server's schedules: systemd timers where systemd runs, lines for cron elsewhere.

The units are those of the Debian package, in units/. For programs that are not in
/usr/bin set-up writes them to /etc/systemd/system with the right paths.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from byteback.server.setup.steps import Outcome, StepRunner, found, warning
from byteback.system import files, host, process

CRON_DIRECTORY = Path("/etc/cron.d")
OWN_UNITS = Path("/etc/systemd/system")
PACKAGED_UNITS = (Path("/usr/lib/systemd/system"), Path("/lib/systemd/system"))
CRON_DAEMONS = ("cron", "crond", "fcron")
OWN_MARK = "# Written by byteback-setup-server"

_TEMPLATES = Path(__file__).parent / "units"


class Job(NamedTuple):
    """One program that runs by itself, as root."""

    name: str  # of its units and files
    program: str
    argument: str
    cron_times: str
    does: str  # "prunes the store every five minutes"

    @property
    def timer(self) -> str:
        """The name of its timer."""
        return f"{self.name}.timer"

    @property
    def service(self) -> str:
        """The name of its service."""
        return f"{self.name}.service"

    @property
    def cron_file(self) -> Path:
        """The file that set-up writes for cron."""
        return CRON_DIRECTORY / self.name

    @property
    def packaged_cron_file(self) -> Path:
        """The file that the Debian package brings for cron."""
        return CRON_DIRECTORY / self.name.replace("byteback-", "byteback-server-")


PRUNE = Job(
    *("byteback-prune", "byteback-prune", "--prune", "*/5 * * * *"),
    "prunes the store every five minutes",
)
STATUS = Job(
    *("byteback-status", "byteback-status", "--notify", "41 * * * *"),
    "looks for alarms every hour",
)
SCRUB = Job(
    *("byteback-scrub", "byteback-status", "--scrub", "23 3 1 * *"),
    "checks the store every month",
)
# This one where byteback-replicate --set-up was run; the others belong to every store.
REPLICATE = Job(
    *("byteback-replicate", "byteback-replicate", "--all", "17 * * * *"),
    "copies the backups of other servers every hour",
)
JOBS = (PRUNE, STATUS, SCRUB)


def provide_schedule(job: Job, program: Path, runner: StepRunner) -> Iterator[Outcome]:
    """See to it that ``program`` runs as the job says."""
    if host.is_systemd_running():
        yield from _provide_timer(job, program, runner)
    else:
        yield from _provide_cron(job, program, runner)


def format_cron(job: Job, program: Path) -> str:
    """The file for /etc/cron.d; ``%`` would end the command, see crontab(5)."""
    command = shlex.quote(str(program)).replace("%", "\\%")
    return (
        f"# This {job.does}.\n"
        f"{OWN_MARK}, which puts it back when it is run again.\n"
        f"{job.cron_times} root {command} {job.argument}\n"
    )


def is_kept(job: Job, content: str | None) -> bool:
    """True if a file that a package or a person wrote runs the job already."""
    if content is None or OWN_MARK in content:
        return False
    lines = [line for line in content.splitlines() if not line.startswith("#")]
    return any(f"{job.program} {job.argument}" in line for line in lines)


def format_unit(unit: str, program: Path) -> str:
    """A unit of the package, with the path of ``program`` in it."""
    text = (_TEMPLATES / unit).read_text(encoding="utf-8")
    path = _quote_for_systemd(str(program))
    return f"{OWN_MARK}.\n{text}".replace(f"/usr/bin/{program.name}", path)


def _quote_for_systemd(word: str) -> str:
    """One word of an ExecStart= line, with nothing left to expand."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"')
    plain = plain.replace("%", "%%").replace("$", "$$")
    return f'"{plain}"' if plain != word or " " in word or "'" in word else word


def _provide_timer(job: Job, program: Path, runner: StepRunner) -> Iterator[Outcome]:
    if any((units / job.timer).exists() for units in PACKAGED_UNITS):
        yield from _remove_own(job, runner)
    else:
        yield from _provide_units(job, program, runner)
    if _is_timer_on(job):
        yield found(f"{job.timer} is enabled and running")
        return
    yield runner.do(
        f"enable and start {job.timer}",
        lambda: process.run(["systemctl", "enable", "--now", job.timer]),
    )


def _provide_units(job: Job, program: Path, runner: StepRunner) -> Iterator[Outcome]:
    units = {unit: format_unit(unit, program) for unit in (job.service, job.timer)}
    wrong = {name: text for name, text in units.items() if _differs(name, text)}
    if wrong:
        yield runner.do(
            f"write {' and '.join(wrong)} in {OWN_UNITS}", lambda: _write_units(wrong)
        )
    else:
        yield found(f"{job.service} and {job.timer} are in {OWN_UNITS}")


def _remove_own(job: Job, runner: StepRunner) -> Iterator[Outcome]:
    """Remove an earlier run's files: they hide the package's, and never change."""
    paths = [OWN_UNITS / job.service, OWN_UNITS / job.timer, job.cron_file]
    own = [path for path in paths if OWN_MARK in (_content(path) or "")]
    if own:
        yield runner.do(
            f"remove {' and '.join(map(str, own))}: the package brings its own",
            lambda: _remove(job, own),
        )


def _remove(job: Job, paths: list[Path]) -> None:
    for path in paths:
        path.unlink()
    if not host.is_systemd_running():
        return
    process.run(["systemctl", "daemon-reload"])
    if OWN_UNITS / job.timer in paths:  # a link that enabled it would lead nowhere now
        process.run(["systemctl", "reenable", job.timer])


def _differs(name: str, text: str) -> bool:
    return _content(OWN_UNITS / name) != text


def _write_units(units: dict[str, str]) -> None:
    for name, text in units.items():
        files.write_atomically(OWN_UNITS / name, text.encode())
    process.run(["systemctl", "daemon-reload"])


def _is_timer_on(job: Job) -> bool:
    asked = [
        process.run(["systemctl", verb, "--quiet", job.timer], tolerate=range(256))
        for verb in ("is-enabled", "is-active")
    ]
    return all(answer.status == 0 for answer in asked)


def _provide_cron(job: Job, program: Path, runner: StepRunner) -> Iterator[Outcome]:
    text, file = format_cron(job, program), job.cron_file
    if is_kept(job, _content(file)):
        yield found(f"{file} {job.does}, and is left as it is")
    elif is_kept(job, _content(job.packaged_cron_file)) and _is_own_or_missing(file):
        yield from _remove_own(job, runner)  # to which the package's gives way
        yield found(f"{job.packaged_cron_file} {job.does}")
    elif _content(file) == text and file.stat().st_mode & 0o777 == 0o644:
        yield found(f"{file} {job.does}")
    else:
        yield runner.do(
            f"write {file}, which {job.does}", lambda: _write_cron(file, text)
        )
    if job is PRUNE and not any(map(process.has_program, CRON_DAEMONS)):
        yield warning(
            "no cron daemon is installed here and systemd does not run: nothing will "
            f"prune the store until one is, or until you run '{program} --prune' "
            "from a scheduler of your own"
        )


def _is_own_or_missing(path: Path) -> bool:
    content = _content(path)
    return content is None or OWN_MARK in content


def _write_cron(file: Path, text: str) -> None:
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    files.write_atomically(file, text.encode())
    # cron ignores a file that others could write to.
    file.chmod(0o644)


def _content(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None
