"""The prune schedule: a systemd timer where systemd runs, a line for cron elsewhere."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from byteback.server.setup.steps import Hands, Outcome, found, warning
from byteback.system import files, host, process

CRON_FILE = Path("/etc/cron.d/byteback-prune")
PACKAGED_CRON_FILE = Path("/etc/cron.d/byteback-server-prune")
OWN_UNITS = Path("/etc/systemd/system")
PACKAGED_UNITS = (Path("/usr/lib/systemd/system"), Path("/lib/systemd/system"))
TIMER = "byteback-prune.timer"
SERVICE = "byteback-prune.service"
CRON_DAEMONS = ("cron", "crond", "fcron")
OWN_MARK = "# Written by byteback-setup-server"


def provide_schedule(program: Path, hands: Hands) -> Iterator[Outcome]:
    """See to it that ``program``, byteback-prune, runs every five minutes as root."""
    if host.is_systemd_running():
        yield from _provide_timer(program, hands)
    else:
        yield from _provide_cron(program, hands)


def format_cron(program: Path) -> str:
    """The file for /etc/cron.d; ``%`` would end the command, see crontab(5)."""
    command = shlex.quote(str(program)).replace("%", "\\%")
    return (
        "# Removes the oldest backups when the store is nearly full.\n"
        f"{OWN_MARK}, which puts it back when it is run again.\n"
        f"*/5 * * * * root {command} --prune\n"
    )


def is_kept(content: str | None) -> bool:
    """Whether a file that a package or a person wrote runs the pruning already."""
    if content is None or OWN_MARK in content:
        return False
    lines = [line for line in content.splitlines() if not line.startswith("#")]
    return any("byteback-prune --prune" in line for line in lines)


def format_service(program: Path) -> str:
    """The service unit. Lowest priority: it must never slow a transfer down."""
    return (
        "# Written by byteback-setup-server.\n"
        "[Unit]\n"
        "Description=Remove the oldest backups when the store is nearly full\n"
        "Documentation=man:byteback-prune(1)\n"
        "\n"
        "[Service]\n"
        "Type=oneshot\n"
        f"ExecStart={_quote_for_systemd(str(program))} --prune\n"
        "Nice=10\n"
        "IOSchedulingClass=idle\n"
    )


def format_timer() -> str:
    """The timer unit."""
    return (
        "# Written by byteback-setup-server.\n"
        "[Unit]\n"
        "Description=Watch the free space of the backup store\n"
        "\n"
        "[Timer]\n"
        "OnCalendar=*:0/5\n"
        "RandomizedDelaySec=30\n"
        "\n"
        "[Install]\n"
        "WantedBy=timers.target\n"
    )


def _quote_for_systemd(word: str) -> str:
    """One word of an ExecStart= line, with nothing left to expand."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"')
    plain = plain.replace("%", "%%").replace("$", "$$")
    return f'"{plain}"' if plain != word or " " in word or "'" in word else word


def _provide_timer(program: Path, hands: Hands) -> Iterator[Outcome]:
    if any((units / TIMER).exists() for units in PACKAGED_UNITS):
        yield from _remove_own(hands)
    else:
        yield from _provide_units(program, hands)
    if _is_timer_on():
        yield found(f"{TIMER} is enabled and running")
        return
    yield hands.do(
        f"enable and start {TIMER}",
        lambda: process.run(["systemctl", "enable", "--now", TIMER]),
    )


def _provide_units(program: Path, hands: Hands) -> Iterator[Outcome]:
    units = {SERVICE: format_service(program), TIMER: format_timer()}
    wrong = {name: text for name, text in units.items() if _differs(name, text)}
    if wrong:
        yield hands.do(
            f"write {' and '.join(wrong)} in {OWN_UNITS}", lambda: _write_units(wrong)
        )
    else:
        yield found(f"{SERVICE} and {TIMER} are in {OWN_UNITS}")


def _remove_own(hands: Hands) -> Iterator[Outcome]:
    """What an earlier run wrote would go before the package's, and never change."""
    paths = [OWN_UNITS / SERVICE, OWN_UNITS / TIMER, CRON_FILE]
    own = [path for path in paths if OWN_MARK in (_content(path) or "")]
    if own:
        yield hands.do(
            f"remove {' and '.join(map(str, own))}: the package brings its own",
            lambda: _remove(own),
        )


def _remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink()
    if not host.is_systemd_running():
        return
    process.run(["systemctl", "daemon-reload"])
    if OWN_UNITS / TIMER in paths:  # a link that enabled it would lead nowhere now
        process.run(["systemctl", "reenable", TIMER])


def _differs(name: str, text: str) -> bool:
    return _content(OWN_UNITS / name) != text


def _write_units(units: dict[str, str]) -> None:
    for name, text in units.items():
        files.write_atomically(OWN_UNITS / name, text.encode())
    process.run(["systemctl", "daemon-reload"])


def _is_timer_on() -> bool:
    asked = [
        process.run(["systemctl", verb, "--quiet", TIMER], tolerate=range(256))
        for verb in ("is-enabled", "is-active")
    ]
    return all(answer.status == 0 for answer in asked)


def _provide_cron(program: Path, hands: Hands) -> Iterator[Outcome]:
    text = format_cron(program)
    if is_kept(_content(CRON_FILE)):
        yield found(f"{CRON_FILE} runs the pruning, and is left as it is")
    elif is_kept(_content(PACKAGED_CRON_FILE)) and _is_own_or_missing(CRON_FILE):
        yield from _remove_own(hands)  # to which the package's gives way
        yield found(f"{PACKAGED_CRON_FILE} runs the pruning every five minutes")
    elif _content(CRON_FILE) == text and CRON_FILE.stat().st_mode & 0o777 == 0o644:
        yield found(f"{CRON_FILE} runs the pruning every five minutes")
    else:
        yield hands.do(
            f"write {CRON_FILE}, which runs the pruning every five minutes",
            lambda: _write_cron(text),
        )
    if not any(process.has_program(daemon) for daemon in CRON_DAEMONS):
        yield warning(
            "no cron daemon is installed here and systemd does not run: nothing will "
            f"prune the store until one is, or until you run '{program} --prune' "
            "from a scheduler of your own"
        )


def _is_own_or_missing(path: Path) -> bool:
    content = _content(path)
    return content is None or OWN_MARK in content


def _write_cron(text: str) -> None:
    CRON_FILE.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    files.write_atomically(CRON_FILE, text.encode())
    # cron ignores a file that others could write to.
    CRON_FILE.chmod(0o644)


def _content(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None
