"""byteback-clients: look after the clients of this server as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import click

from byteback import log
from byteback.cli import _boundary
from byteback.cli._client_names import complete_client
from byteback.cli._options import (
    CONTEXT,
    Function,
    exit_status_help,
    verbose_option,
    version_option,
)

PROGRAM = "byteback-clients"
STATUSES = exit_status_help(0, 1, 2, 10, 11, 13)


@click.group(PROGRAM, context_settings=CONTEXT, epilog=STATUSES)
@version_option
def command() -> None:
    """List, change and remove the clients of this server.

    Run it on the server, as root.
    """


def _subcommand(name: str) -> Callable[[Callable[..., None]], click.Command]:
    def make(function: Callable[..., None]) -> click.Command:
        return command.command(name, epilog=STATUSES)(verbose_option(function))

    return make


def _clients_argument(function: Function) -> Function:
    return click.argument(
        "clients", nargs=-1, metavar="[CLIENT]...", shell_complete=complete_client
    )(function)


@_subcommand("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@_clients_argument
def list_clients(clients: tuple[str, ...], *, as_json: bool, verbose: bool) -> None:
    """List all clients, or some: their keys, and what the store has of them."""
    from byteback.model import fleet
    from byteback.server.fleet import roster
    from byteback.server.prune import run

    log.set_up(PROGRAM, verbose=verbose)
    with run.opened_store() as store:
        found = roster.collect(store, clients)
    if as_json:
        click.echo(fleet.format_json(found))
    else:
        _echo(fleet.format_list(found))


def _echo(lines: list[str]) -> None:
    click.echo("".join(f"{line}\n" for line in lines), nl=False)


def main() -> NoReturn:
    """Run the program."""
    _boundary.run(command)
