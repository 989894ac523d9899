"""byteback-prune: keep free space in the store."""

from __future__ import annotations

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
from byteback.errors import UsageError


@click.command(
    "byteback-prune",
    context_settings=CONTEXT,
    epilog=exit_status_help(0, 1, 2, 10, 11, 13),
)
@click.option("-l", "--list", "show", is_flag=True, help="Show the order and stop.")
@click.option("-p", "--prune", is_flag=True, help="Delete while space is short.")
@click.option(
    "-r", "--prune-force", "force", is_flag=True, help="Delete one snapshot now."
)
@click.option(
    "-m",
    "--minpercent",
    "min_percent",
    type=float,
    metavar="PERCENT",
    help="Free space at or below which pruning starts (5).",
)
@click.option(
    "-a",
    "--maxpercent",
    "max_percent",
    type=float,
    metavar="PERCENT",
    help="Free space at which pruning stops (10).",
)
@click.option(
    "-o",
    "--order",
    type=click.Choice(["age", "importance"]),
    default="importance",
    show_default=True,
    help="What goes first: the oldest, or what matters least.",
)
@verbose_option
@version_option
def command(
    show: bool,
    prune: bool,
    force: bool,
    min_percent: float | None,
    max_percent: float | None,
    order: str,
    verbose: bool,
) -> None:
    """Delete the least important snapshots of all clients while space is short.

    Run it every few minutes, as root or as the byteback user. The last line that
    --list shows is the next to go.
    """
    log.set_up("byteback-prune", verbose=verbose)
    if show == (prune or force):
        raise UsageError("give one of --list and --prune (or --prune-force)")
    from byteback.server import prune as server

    pruner = server.Pruner(server.open_store(), order)
    if show:
        click.echo("".join(f"{line}\n" for line in pruner.listing()), nl=False)
    elif force:
        pruner.prune_one()
    else:
        pruner.prune(server.choose_limits(min_percent, max_percent))


def main() -> NoReturn:
    """Run the program."""
    _boundary.run(command)
