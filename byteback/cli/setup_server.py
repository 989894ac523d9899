"""byteback-setup-server: make this machine a backup server."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import click

from byteback import log
from byteback.cli import _boundary
from byteback.cli._options import (
    CONTEXT,
    exit_status_help,
    verbose_option,
    version_option,
)
from byteback.cli._outcomes import show
from byteback.errors import UsageError
from byteback.server.setup import run
from byteback.server.setup.steps import choose_store

PATH = click.Path(path_type=Path)
CHANGES = ("grow", "add", "replace", "remove")  # of the store's discs


@click.command(
    "byteback-setup-server",
    context_settings=CONTEXT,
    epilog=exit_status_help(0, 1, 2, 10, 11, 13, 75),
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
    help="What is on a new device may be lost. A store is never formatted again.",
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
@click.option(
    "--grow",
    is_flag=True,
    help="Let the store use all of its devices; with --size, enlarge its image first.",
)
@click.option(
    "--add-device",
    "add",
    type=PATH,
    metavar="DEV",
    help="Make this empty device part of the store as well.",
)
@click.option(
    "--replace-device",
    "replace",
    type=(str, PATH),
    metavar="OLD NEW",
    help="Copy what is on one device of the store to a new one, which takes its place.",
)
@click.option(
    "--remove-device",
    "remove",
    metavar="DEV",
    help="Move what is on a device to the store's others, and take it away.",
)
@click.option("--yes", is_flag=True, help="Do not ask before devices change.")
@click.option("-n", "--dry-run", is_flag=True, help="Show the steps, change nothing.")
@verbose_option
@version_option
def command(**words: Any) -> None:
    """Make this machine a backup server.

    Makes the user "byteback", the store (a btrfs file system: name an --image, a
    --device or a --directory), its mount now and at boot, and the prune schedule.
    Safe to run again: what is there is kept, and without a store's name it is only
    checked and repaired. --grow and the options for devices change the store's discs
    instead, while backups go on.
    """
    log.set_up("byteback-setup-server", verbose=words["verbose"])
    if any(words[name] for name in CHANGES):
        from byteback.cli import _discs

        _discs.change(words)
        return
    if words["yes"]:
        raise UsageError("--yes goes with the options that change devices")
    choice = choose_store(
        device=words["device"],
        may_format=words["may_format"],
        directory=words["directory"],
        image=words["image"],
        size=words["size"],
        by_hand=words["by_hand"],
    )
    request = run.SetupRequest(
        *(choice, words["mount_point"], words["admin_keys"]),
        with_schedule=not words["no_schedule"],
        dry_run=words["dry_run"],
    )
    show(run.set_up(request))


def main() -> NoReturn:
    """Entry point."""
    _boundary.run(command)
