"""byteback-setup-client: make this machine a client of a server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click

from byteback import log
from byteback.cli import _boundary
from byteback.cli._options import (
    CONTEXT,
    exit_status_help,
    verbose_option,
    version_option,
)
from byteback.cli._questions import TerminalQuestions
from byteback.client.backup import hook_words
from byteback.client.settings import Files, read_destination
from byteback.client.setup import enrolment
from byteback.client.setup.enrolment import Outcome
from byteback.client.setup.introduction import Options
from byteback.client.setup.schedule import Schedule, parse_wish
from byteback.client.setup.schedule_files import TIMER
from byteback.errors import UsageError, escape
from byteback.model.invitation import Word, parse_word
from byteback.system import privilege

_DONE = {
    "enrolled": "This machine is now the client {host} of {server}",
    "already": "This machine is already the client {host} of {server}",
    "replaced": "This machine is the client {host} of {server} again, with a new key.",
    "modernised": "This machine is the client {host}; "
    "its line was brought up to date on {server}",
}
_WAS_OTHER = (
    "The server knew another machine by this key, and refuses that one from now on."
)


@click.command(
    "byteback-setup-client",
    context_settings=CONTEXT,
    epilog=exit_status_help(0, 1, 2, 9, 10, 11, 12, 13, 75),
)
@click.option(
    "-d",
    "--destination",
    metavar="[USER@]HOST:",
    help="The server.  [default: what /etc/byteback/destination says]",
)
@click.option(
    "--hostname",
    metavar="NAME",
    help="The name to be known by.  [default: the one that it has been enrolled under,"
    " or the fully-qualified host name]",
)
@click.option(
    "--login",
    metavar="USER",
    help="Introduce this machine as USER, who may be root.  "
    "[default: the destination's user]",
)
@click.option(
    "--invitation",
    metavar="WORD",
    help="Enrol by an invitation instead of a login; - reads it from standard input.",
)
@click.option(
    "--accept-new-host-key",
    is_flag=True,
    help="Trust a server that was never seen before without asking.",
)
@click.option(
    "--replace-key",
    is_flag=True,
    help="Take over the name's old backups if it belongs to another key.",
)
@click.option(
    "-k",
    "--ssh-key",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="This machine's key, made if missing.  [default: /etc/byteback/key]",
)
@click.option(
    "--schedule-at",
    metavar="TIME|own",
    help="Start backups then: 22:30, hourly, 'Mon..Fri 08..18/2:00'.  [default: the "
    "time chosen earlier, or daily at one of this machine's own between 00:00 and "
    "04:00]",
)
@click.option(
    "--no-schedule",
    is_flag=True,
    help="Start no backups by themselves, until this is run again without it.",
)
@verbose_option
@version_option
def command(
    *,
    destination: str | None,
    hostname: str | None,
    login: str | None,
    invitation: str | None,
    accept_new_host_key: bool,
    replace_key: bool,
    ssh_key: Path | None,
    schedule_at: str | None,
    no_schedule: bool,
    verbose: bool,
) -> None:
    """Make this machine a client of a byteback server, once; harmless when run again.

    It makes a key, introduces it to the server over a login of yours (ssh agent, keys
    or password), and proves that the key works before it says so.
    """
    log.set_up("byteback-setup-client", verbose=verbose)
    privilege.require_root("only root can set this machine up as a client")
    files = Files()
    options = Options(
        *(ssh_key or files.key, hostname, login, accept_new_host_key, replace_key),
        schedule=parse_wish(no_schedule, schedule_at),
        invitation=_read_word(invitation, with_login=bool(login or replace_key)),
    )
    server = read_destination(files, destination)
    done = enrolment.set_up_client(files, server, options, TerminalQuestions())
    click.echo(format_outcome(done))
    click.echo(format_schedule(done.schedule))
    for line in format_hooks(files):
        click.echo(line)


def _read_word(given: str | None, *, with_login: bool) -> Word | None:
    if given is None:
        return None
    if with_login:
        raise UsageError("--invitation needs no --login, and replaces no key")
    return parse_word(sys.stdin.readline() if given == "-" else given)


def format_outcome(outcome: Outcome) -> str:
    """Describe the result, how to recognise it later, and the next step."""
    done = _DONE.get(outcome.result, _DONE["enrolled"])
    return "\n".join(
        [
            done.format(host=outcome.host, server=outcome.server),
            f"  its key:      {outcome.fingerprint}",
            f"  server's key: {outcome.server_fingerprint}",
            f"  server runs:  byteback {escape(outcome.server_version)}",
            *([_WAS_OTHER] if outcome.was_other else []),
            "The key was tried and works. Next: byteback-backup --verbose",
        ]
    )


def format_schedule(schedule: Schedule) -> str:
    """Describe what starts backups from now on, and what to do about it."""
    own = escape(", ".join(map(str, schedule.own_lines)))
    if schedule.state == "off":
        also = f", but for {own}" if own else ""
        return f"Nothing starts backups by itself{also}."
    if schedule.state == "own":
        return (
            f"Backups are started by {own}, and by nothing else.\n"
            "  To change over, remove that line and run this again."
        )
    if schedule.state == "disabled":
        return (
            f"Nothing starts backups by itself: {TIMER} was disabled.\n"
            f"  To change that: systemctl enable --now {TIMER}"
        )
    lines = [f"From now on a backup starts {_describe_time(schedule)}."]
    if schedule.state == "no cron":
        lines = ["Nothing starts backups by itself before a cron daemon is installed."]
    if own:
        lines.append(f"  {own} starts them as well: remove that line.")
    return "\n".join(lines)


def format_hooks(files: Files) -> list[str]:
    """The hooks that could be used, and files that look like hooks and are none."""
    lines = hook_words.ignored_hooks(files.directory)
    shipped = hook_words.shipped_directory()
    if shipped is not None:
        lines.append(f"Hooks for databases and file systems: {shipped}, byteback(7)")
    return lines


def _describe_time(schedule: Schedule) -> str:
    runner = TIMER if schedule.runner == "systemd" else "cron"
    if schedule.at is None:
        return f"every day between 00:00 and 04:00 ({runner})"
    when = "every day at" if schedule.at.is_daily else "at the times"
    return f"{when} {schedule.at.text} ({runner})"


def main() -> NoReturn:
    """Run the command and end with its exit status."""
    _boundary.run(command)
