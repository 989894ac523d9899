"""byteback-setup-server: make this machine a backup server."""

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
from byteback.server.setup import run
from byteback.server.setup.steps import choose_store

PATH = click.Path(path_type=Path)


@click.command(
    "byteback-setup-server",
    context_settings=CONTEXT,
    epilog=exit_status_help(0, 1, 2, 10, 11, 13),
)
@click.option(
    "--image",
    type=PATH,
    metavar="FILE",
    help="Keep the store in this file, mounted through a loop device.",
)
@click.option("--size", metavar="SIZE", help="How large a new image is: 500M, 20G, 1T.")
@click.option(
    "--device",
    type=PATH,
    metavar="DEV",
    help="Keep the store on this disc or partition, which must be empty.",
)
@click.option(
    "--format",
    "may_format",
    is_flag=True,
    help="With --device: what is on it may be lost. A store is never formatted again.",
)
@click.option(
    "--directory",
    type=PATH,
    metavar="DIR",
    help="Keep the store here, on a btrfs that is mounted already.",
)
@click.option(
    "--mount-point",
    type=PATH,
    metavar="DIR",
    help="Where to mount the device or image.  [default: /srv/byteback]",
)
@click.option(
    "--mount-by-hand",
    "by_hand",
    is_flag=True,
    help="Never mount it at boot: for a disc that several machines can reach.",
)
@click.option(
    "--admin-key",
    "admin_keys",
    multiple=True,
    metavar="FILE",
    help="Public keys of those who may enrol clients; - is standard input. Repeatable.",
)
@click.option("--no-schedule", is_flag=True, help="Do not schedule the pruning.")
@click.option("-n", "--dry-run", is_flag=True, help="Show the steps, change nothing.")
@verbose_option
@version_option
def command(
    image: Path | None,
    size: str | None,
    device: Path | None,
    may_format: bool,
    directory: Path | None,
    mount_point: Path | None,
    by_hand: bool,
    admin_keys: tuple[str, ...],
    no_schedule: bool,
    dry_run: bool,
    verbose: bool,
) -> None:
    """Make this machine a backup server.

    Makes the user "byteback", the store (a btrfs file system: name an --image, a
    --device or a --directory), its mount now and at boot, and the prune schedule.
    Safe to run again: what is there is kept, and without a store's name it is only
    checked and repaired.
    """
    log.set_up("byteback-setup-server", verbose=verbose)
    choice = choose_store(
        device=device,
        may_format=may_format,
        directory=directory,
        image=image,
        size=size,
        by_hand=by_hand,
    )
    request = run.SetupRequest(
        choice, mount_point, admin_keys, not no_schedule, dry_run
    )
    for outcome in run.set_up(request):
        click.echo(f"{outcome.kind + ':':<9}{_boundary.escape_line(outcome.text)}")


def main() -> NoReturn:
    """Entry point."""
    _boundary.run(command)
