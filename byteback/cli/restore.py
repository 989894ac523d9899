"""byteback-restore: list, find and restore files from the backups."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from byteback import log
from byteback.cli import _boundary
from byteback.cli._comparing import check_sample, show_differences
from byteback.cli._listing import PROGRAM, remark, show_files
from byteback.cli._options import (
    CONTEXT,
    compress_option,
    exit_status_help,
    version_option,
)
from byteback.cli._progress import ProgressLine
from byteback.cli._snapshot_names import complete_snapshot
from byteback.client.restore import run
from byteback.client.restore.plan import choose_layout
from byteback.client.restore.query import Query, Server
from byteback.client.restore.verify import DEFAULT_SAMPLE, MAX_SAMPLE
from byteback.errors import UsageError, escape
from byteback.model import listing

RESTORE_ONLY = ("to", "in_place", "yes", "overwrite", "dry_run", "compress")

ANY_SNAPSHOT = "*"


@dataclass(frozen=True)
class Options:
    """The command line, as click read it."""

    patterns: tuple[str, ...]
    as_list: bool
    as_restore: bool
    snapshot: str
    destination: str | None
    io_timeout: int | None
    ssh_key: Path | None
    compress: str | None
    every_version: bool
    to: Path | None
    in_place: bool
    yes: bool
    overwrite: bool
    dry_run: bool
    as_json: bool
    human_readable: bool
    as_diff: bool
    as_verify: bool
    sample: int
    verbose: bool

    @property
    def server(self) -> Server:
        """Where the backups are."""
        return Server(self.destination, self.ssh_key, self.io_timeout, self.compress)

    @property
    def query(self) -> Query:
        """What is looked for. Only a listing can show every copy."""
        scope = "versions" if self.every_version else "newest"
        if self.verbose and not self.as_restore:
            scope = "copies"
        return Query(self.patterns, self.snapshot, scope)


@click.command(
    PROGRAM,
    context_settings=CONTEXT,
    epilog=exit_status_help(0, 1, 2, 3, 9, 10, 12, 13, 70, 75),
)
@click.argument("patterns", metavar="[PATTERN]...", nargs=-1)
@click.option("-l", "--list", "as_list", is_flag=True, help="List files (the default).")
@click.option("-r", "--restore", "as_restore", is_flag=True, help="Restore files.")
@click.option(
    "-s",
    "--snapshot",
    default=ANY_SNAPSHOT,
    show_default=True,
    metavar="NAME",
    shell_complete=complete_snapshot,
    help="Look in this snapshot only; '*' stands for any characters.",
)
@click.option(
    "-a",
    "--all",
    "every_version",
    is_flag=True,
    help="Every distinct version of each file, not only the newest.",
)
@click.option("-d", "--destination", metavar="[USER@]HOST[:]", help="The server.")
@click.option(
    "-i",
    "--io-timeout",
    type=click.IntRange(min=1),
    help="Seconds of silence after which a transfer is given up."
    f"  [default: {run.DEFAULT_IO_TIMEOUT_S}]",
)
@click.option(
    "-k",
    "--ssh-key",
    type=click.Path(path_type=Path),
    help="This machine's private key.  [default: /etc/byteback/key]",
)
@compress_option
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Restore below DIR, without a directory named after the snapshot.",
)
@click.option("--in-place", is_flag=True, help="Restore to where the files were.")
@click.option(
    "--yes",
    is_flag=True,
    help="Do not ask before --in-place, nor stop if the disc seems too small.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="With --to or --in-place: replace files that are newer, too.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Show what --restore would change.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("-H", "--human-readable", is_flag=True, help="Sizes like 1.5K or 20M.")
@click.option(
    "--diff",
    "as_diff",
    is_flag=True,
    help="SNAPSHOT [SNAPSHOT] [PATTERN]...: list what changed between the two, or "
    "until now.",
)
@click.option(
    "--verify",
    "as_verify",
    is_flag=True,
    help="Compare a random sample of the newest snapshot with this machine.",
)
@click.option(
    "--sample",
    type=click.IntRange(1, MAX_SAMPLE),
    default=DEFAULT_SAMPLE,
    show_default=True,
    metavar="N",
    help="How many files --verify compares.",
)
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="List every copy in every snapshot; with --restore, show what is run.",
)
@version_option
def command(**words: Any) -> None:
    """List or restore files from this machine's backups.

    PATTERNs are paths, in quotes if they hold the wildcards *, ?, [set], {a,b} or
    **/; they start where you are unless they begin with a slash. The newest copy of
    each file counts; --all means each version of it. What is restored goes to a
    directory named after its snapshot, below the one you are in.
    """
    options = Options(**words)
    _check(options)
    is_listing = not (options.as_restore or options.as_diff or options.as_verify)
    log.set_up(PROGRAM, verbose=options.verbose and not is_listing)
    if options.as_restore:
        _restore(options)
    elif options.as_diff:
        show_differences(options.server, options.patterns, as_json=options.as_json)
    elif options.as_verify:
        check_sample(options.server, options.patterns, options.sample)
    else:
        show_files(
            options.server,
            options.query,
            as_json=options.as_json,
            human=options.human_readable,
        )


def _check(options: Options) -> None:
    modes = {
        "--list": options.as_list,
        "--restore": options.as_restore,
        "--diff": options.as_diff,
        "--verify": options.as_verify,
    }
    chosen = [name for name, is_chosen in modes.items() if is_chosen]
    if len(chosen) > 1:
        raise UsageError(f"{chosen[0]} and {chosen[1]} contradict each other")
    if options.as_diff and options.snapshot != ANY_SNAPSHOT:
        name = options.snapshot
        raise UsageError(
            "--diff takes snapshots as words, not with --snapshot",
            hint=f"byteback-restore --diff {name} compares {name} with now",
        )
    if not (options.patterns or options.as_diff or options.as_verify):
        raise UsageError("no pattern was given", hint="name the files to look for")
    if not options.as_restore:
        for name in RESTORE_ONLY:
            if getattr(options, name):
                word = "--" + name.replace("_", "-")
                raise UsageError(
                    f"{word} belongs to --restore", hint="add --restore (-r)"
                )


def _restore(options: Options) -> None:
    layout = choose_layout(
        _start(options),
        to=options.to,
        in_place=options.in_place,
        overwrite=options.overwrite,
        every_version=options.every_version,
    )
    confirm = _confirm if _must_ask(options) else None
    with _progress(options) as line:
        wish = run.Wish(
            *(layout, options.dry_run, confirm, line),
            insist=options.yes,
        )
        done = run.restore_files(options.server, options.query, wish)
    remark(done.found)
    if options.as_json:
        for entry in done.found.entries:
            click.echo(listing.format_json(entry))
    for change in done.changes:
        click.echo(f"{change.action:<8}{escape(change.path)}")
    done.check()


def _start(options: Options) -> Path:
    """The working directory, which may have been removed, where it matters."""
    is_elsewhere = options.to is not None and options.to.is_absolute()
    return Path("/") if options.in_place or is_elsewhere else Path.cwd()


def _must_ask(options: Options) -> bool:
    must_ask = options.in_place and not (options.yes or options.dry_run)
    if must_ask and not sys.stdin.isatty():
        raise UsageError(
            "--in-place replaces files of this machine and nobody is there to ask",
            hint="add --yes if that is what you want",
        )
    return must_ask


@contextlib.contextmanager
def _progress(options: Options) -> Iterator[ProgressLine | None]:
    line = None if options.dry_run else ProgressLine.for_terminal()
    with line or contextlib.nullcontext():
        yield line


def _confirm(what: str) -> bool:
    click.echo(f"To be restored to where it was on this machine:\n{what}", err=True)
    return click.confirm("Go on?", default=False, err=True)


def main() -> NoReturn:
    """Run the command."""
    _boundary.run(command)
