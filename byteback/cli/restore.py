"""byteback-restore: list, find and restore files from the backups."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from byteback import log
from byteback.cli import _boundary
from byteback.cli._client_names import complete_client
from byteback.cli._listing import PROGRAM, remark, show_files
from byteback.cli._options import (
    CONTEXT,
    compress_option,
    exit_status_help,
    io_timeout_option,
    ssh_key_option,
    version_option,
)
from byteback.cli._progress import ProgressLine
from byteback.cli._snapshot_names import complete_snapshot
from byteback.client.restore import other_machine, run
from byteback.client.restore.plan import Layout, choose_layout
from byteback.client.restore.query import (
    DEFAULT_SAMPLE,
    MAX_SAMPLE,
    Query,
    Server,
)
from byteback.errors import UsageError, escape
from byteback.model import listing

RESTORE_ONLY = (
    *("to", "in_place", "yes", "keep_newer", "overwrite", "dry_run", "compress"),
)
NAMED = 1000  # of the names that could not be restored

ANY_SNAPSHOT = "*"


@dataclass(frozen=True)
class Options:
    """The command line, as click read it."""

    patterns: tuple[str, ...]
    as_list: bool
    as_restore: bool
    snapshot: str
    host: str | None
    destination: str | None
    io_timeout: int | None
    ssh_key: Path | None
    compress: str | None
    every_version: bool
    to: Path | None
    in_place: bool
    yes: bool
    keep_newer: bool
    overwrite: bool
    dry_run: bool
    as_json: bool
    human_readable: bool
    as_diff: bool
    as_verify: bool
    sample: int
    verbose: bool

    @functools.cached_property
    def server(self) -> Server:
        """Where the backups are."""
        if self.host is not None:
            from byteback.cli._other_machine import find_server

            return find_server(self.host, self.io_timeout)
        return Server(self.destination, self.ssh_key, self.io_timeout, self.compress)

    @property
    def query(self) -> Query:
        """The scope of the search. Only a listing can show every copy."""
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
@click.option(
    "--host",
    metavar="CLIENT",
    shell_complete=complete_client,
    help="On the server, as root: that client's backups instead of this machine's.",
)
@click.option("-d", "--destination", metavar="[USER@]HOST[:]", help="The server.")
@io_timeout_option(run.DEFAULT_IO_TIMEOUT_S)
@ssh_key_option
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
    help="Do not ask before files are replaced, nor stop if the disc seems too small.",
)
@click.option(
    "--keep-newer",
    is_flag=True,
    help="With --to or --in-place: leave what is newer there than in the backup.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Without effect: what is newer is replaced anyway, unless --keep-newer.",
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

    With --host, root on the server does the same with a client's backups.
    PATTERNs are paths, in quotes if they hold the wildcards *, ?, [set], {a,b} or
    **/; they start where you are unless they begin with a slash. The newest copy of
    each file counts; --all means each version of it. What is restored goes to a
    directory named after its snapshot, below the one you are in.
    """
    options = Options(**words)
    _check(options)
    if options.host is not None:
        _check_host(options.host, options)
    is_listing = not (options.as_restore or options.as_diff or options.as_verify)
    log.set_up(PROGRAM, verbose=options.verbose and not is_listing)
    if options.as_restore:
        _restore(options)
    elif options.as_diff or options.as_verify:
        _compare(options)
    else:
        show_files(
            options.server,
            options.query,
            as_json=options.as_json,
            human=options.human_readable,
        )


def _compare(options: Options) -> None:
    # Late: restores and listings need no memory for what knows a backup's rules.
    from byteback.cli._comparing import check_sample, show_differences

    if options.as_diff:
        show_differences(options.server, options.patterns, as_json=options.as_json)
    else:
        check_sample(options.server, options.patterns, options.sample)


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


def _check_host(client: str, options: Options) -> None:
    from byteback.cli._other_machine import check_words

    check_words(vars(options))
    if not options.as_diff:
        other_machine.check_patterns(client, options.patterns)


def _restore(options: Options) -> None:
    confirm = _confirmation(options)
    with _progress(options) as line:
        chosen = run.RestoreOptions(
            *(_layout(options), options.dry_run, confirm, options.in_place, line),
            insist=options.yes,
        )
        done = run.restore_files(options.server, options.query, chosen)
    remark(done.found)
    if options.as_json:
        for entry in done.found.entries:
            click.echo(listing.format_json(entry))
    _show(done)
    done.check()


def _layout(options: Options) -> Layout:
    layout = choose_layout(
        _start(options),
        to=options.to,
        in_place=options.in_place,
        keep_newer=options.keep_newer,
        overwrite=options.overwrite,
        every_version=options.every_version,
    )
    origin = options.server.origin
    if origin is None:
        return layout
    insist = options.yes or options.dry_run
    return other_machine.prepare_layout(
        origin.client, layout, origin.state.parent, insist=insist
    )


def _start(options: Options) -> Path:
    """The working directory, which may have been removed, where it matters."""
    is_elsewhere = options.to is not None and options.to.is_absolute()
    return Path("/") if options.in_place or is_elsewhere else Path.cwd()


def _show(done: run.Restored) -> None:
    """Show what a dry run foresees, and what a run left undone."""
    for change in done.changes:
        click.echo(f"{change.action:<8}{escape(change.path)}")
    for change in done.kept:
        click.echo(f"{'keep':<8}{escape(change.path)}")
    if done.newer:
        click.echo(
            f"{PROGRAM}: note: of what is replaced, {done.newer} newer than in the "
            "backup: --keep-newer leaves that as it is",
            err=True,
        )
    for sentence in done.missing[:NAMED]:
        click.echo(f"{PROGRAM}: not restored: {sentence}", err=True)
    if len(done.missing) > NAMED:
        more = len(done.missing) - NAMED
        click.echo(f"{PROGRAM}: and {more} more: --dry-run finds them", err=True)


def _confirmation(options: Options) -> Callable[[str], bool] | None:
    """The question before files are replaced; None where there is none to ask."""
    if options.yes or options.dry_run or not (options.in_place or options.to):
        return None
    if sys.stdin.isatty():
        return _confirm
    if options.in_place:
        _refuse("--in-place replaces files of this machine")
    return lambda _what: _refuse("files in the directory of --to would be replaced")


def _refuse(what: str) -> NoReturn:
    raise UsageError(
        f"{what} and there is no terminal to ask on",
        hint="add --yes if that is what you want; --dry-run shows it beforehand",
    )


@contextlib.contextmanager
def _progress(options: Options) -> Iterator[ProgressLine | None]:
    line = None if options.dry_run else ProgressLine.for_terminal()
    with line or contextlib.nullcontext():
        yield line


def _confirm(what: str) -> bool:
    click.echo(f"To be restored:\n{what}", err=True)
    return click.confirm("Go on?", default=False, err=True)


def main() -> NoReturn:
    """Run the command."""
    _boundary.run(command)
