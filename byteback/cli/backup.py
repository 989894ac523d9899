"""byteback-backup: back up this machine."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import click

from byteback import log
from byteback.cli import _boundary
from byteback.cli._options import (
    CONTEXT,
    compress_option,
    exit_status_help,
    io_timeout_option,
    ssh_key_option,
    verbose_option,
    version_option,
)
from byteback.cli._progress import ProgressLine
from byteback.client.backup import hook_words, last_run
from byteback.client.backup.run import DEFAULT_IO_TIMEOUT_S, Options, run_backup
from byteback.client.transport.retry import RetryPolicy

logger = logging.getLogger(__name__)

GREEDY = ("-s", "--source", "-x", "--exclude")


def spread_greedy(argv: Sequence[str]) -> list[str]:
    """``--source /etc /home`` as ``--source /etc --source /home``.

    The Ruby tool's list options took every word up to the next option, and scripts
    rely on it; this program has no arguments of its own that they could swallow.
    """
    words: list[str] = []
    option, has_value = "", False
    for position, word in enumerate(argv):
        if word == "--":
            return [*words, *argv[position:]]
        if word.startswith("-") and len(word) > 1:
            name = word.partition("=")[0]
            option = name if name in GREEDY else ""
            has_value = "=" in word
            words.append(word)
        else:
            words += [option, word] if option and has_value else [word]
            has_value = bool(option)
    return words


def describe_hooks() -> str:
    """Where the hooks are that come with this installation."""
    directory = hook_words.shipped_directory()
    if directory is None:
        return "The hooks of byteback(7) are not installed."
    return f"\b\nHooks to link into /etc/byteback, see byteback(7):\n  {directory}"


@click.command(
    "byteback-backup",
    context_settings=CONTEXT,
    epilog=f"{describe_hooks()}\n\n"
    + exit_status_help(0, 1, 2, 3, 9, 10, 11, 12, 13, 14, 70, 75),
)
@click.option("-d", "--destination", metavar="[USER@]HOST[:]", help="The server.")
@click.option(
    "-s",
    "--source",
    "sources",
    multiple=True,
    type=click.Path(),
    metavar="PATH",
    help="What to back up; can be given several times.  [default: /]",
)
@click.option(
    "-x",
    "--exclude",
    "excludes",
    multiple=True,
    metavar="PATTERN",
    help="What to leave out, as for rsync; replaces the automatic excludes.",
)
@click.option(
    "-r",
    "--retry-number",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="How often to try again.",
)
@click.option(
    "-e",
    "--retry-delay",
    type=click.IntRange(min=0),
    default=300,
    show_default=True,
    help="Seconds before the first retry; the pauses grow from there.",
)
@io_timeout_option(DEFAULT_IO_TIMEOUT_S)
@ssh_key_option
@click.option(
    "--full",
    is_flag=True,
    help="Compare everything, rather than what has changed by the record.",
)
@compress_option
@click.option(
    "--yes", is_flag=True, help="Do not ask before less is backed up than last time."
)
@click.option("-n", "--dry-run", is_flag=True, help="Show what would be sent.")
@click.option("--last", is_flag=True, help="Tell when the last good backup was.")
@click.option("--check", is_flag=True, help="The same for a monitoring system.")
@click.option("--mail-failure", is_flag=True, help="Mail root about a failed run.")
@verbose_option
@version_option
def command(
    destination: str | None,
    sources: tuple[str, ...],
    excludes: tuple[str, ...],
    retry_number: int,
    retry_delay: int,
    io_timeout: int | None,
    ssh_key: Path | None,
    full: bool,
    compress: str | None,
    yes: bool,
    dry_run: bool,
    last: bool,
    check: bool,
    mail_failure: bool,
    verbose: bool,
) -> None:
    """Back up this machine to its server.

    Set it up once with byteback-setup-client; then cron or a systemd timer runs this
    every day. What a broken line or a reboot has cut off is resumed.
    """
    log.set_up("byteback-backup", verbose=verbose)
    if last or check or mail_failure:
        _tell(check=check, mail_failure=mail_failure)
        return
    with contextlib.ExitStack() as stack:
        line = None if dry_run else ProgressLine.for_terminal()
        options = Options(
            destination=destination,
            sources=sources or ("/",),
            excludes=excludes or None,
            retry=RetryPolicy(retry_number, retry_delay),
            io_timeout_s=io_timeout,
            key=ssh_key,
            compress=compress,
            full=full,
            dry_run=dry_run,
            on_progress=stack.enter_context(line) if line else None,
            on_line=click.echo if dry_run else None,
            on_notice=partial(_notify, verbose=verbose),
            confirm=None if yes else _question(),
        )
        run_backup(options)


def _tell(*, check: bool, mail_failure: bool) -> None:
    """Answer from this machine's own notes, without a network."""
    notes, now = last_run.read(), time.time()
    if mail_failure:
        last_run.mail_failure(notes, now)
    elif check:
        line, status = last_run.check(notes, now)
        click.echo(line)
        raise click.exceptions.Exit(status)
    else:
        click.echo("\n".join(last_run.describe(notes, now)))


def _question() -> Callable[[str], bool] | None:
    """Asks the person at the terminal; None where there is no terminal."""
    if sys.stdin is None or not sys.stdin.isatty():
        return None  # without the modules, and their memory: as cron has it
    from byteback.cli._questions import TerminalQuestions

    ask = TerminalQuestions()
    return (lambda text: ask.confirm(f"{text}. Go on?")) if ask.can_confirm() else None


def _notify(text: str, *, verbose: bool) -> None:
    """Log something, and have cron mail it: the log may never be read."""
    logger.warning("%s", text)
    if not (verbose or sys.stderr.isatty()):  # where the log is shown already
        click.echo(f"byteback-backup: note: {text}", err=True)


def main() -> NoReturn:
    """Run the command."""
    _boundary.run(command, spread_greedy(sys.argv[1:]))
