"""byteback-snapshot: snapshot one client's current by hand."""

from __future__ import annotations

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
from byteback.server.prune import by_hand


@click.command(
    "byteback-snapshot",
    context_settings=CONTEXT,
    epilog=exit_status_help(0, 1, 2, 9, 10, 11, 13, 14),
)
@click.option(
    "--root",
    metavar="DIR",
    required=True,
    type=click.Path(path_type=Path),
    help="The client's directory in the store, or its name.",
)
@click.option("--snapshot", is_flag=True, help="Accepted for old scripts; no effect.")
@verbose_option
@version_option
def command(root: Path, snapshot: bool, verbose: bool) -> None:  # noqa: ARG001 # see --snapshot
    """Take a read-only snapshot of a client's current on this server.

    Clients ask for this themselves at the end of each backup. It is refused while a
    transfer of that client runs, if the last one was cut off, and if the newest
    snapshot is younger than six hours (snapshot_interval_hours in server.toml).
    """
    log.set_up("byteback-snapshot", verbose=verbose)
    name = by_hand.snapshot(root)
    click.echo(f"made {root.name}/{name}")


def main() -> NoReturn:
    """Run the command."""
    _boundary.run(command)
