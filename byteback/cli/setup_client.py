"""byteback-setup-client: make this machine a client of a server."""

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
from byteback.cli._questions import TerminalQuestions
from byteback.client import enrol
from byteback.client.enrol import Outcome
from byteback.client.introduction import Options
from byteback.client.settings import Files, read_destination
from byteback.errors import escape

_DONE = {
    "enrolled": "This machine is now the client {host} of {server}.",
    "already": "This machine was the client {host} of {server} already.",
    "replaced": "This machine is the client {host} of {server} again, with a new key.",
    "modernised": "This machine is the client {host} of {server}; "
    "its line there was brought up to date.",
}


@click.command(
    "byteback-setup-client",
    context_settings=CONTEXT,
    epilog=exit_status_help(0, 1, 2, 9, 10, 11, 12, 13),
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
    help="The name to be known by.  [default: the fully-qualified host name]",
)
@click.option(
    "--login",
    metavar="USER",
    help="Introduce this machine as USER, who may be root.  "
    "[default: the destination's user]",
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
@verbose_option
@version_option
def command(
    *,
    destination: str | None,
    hostname: str | None,
    login: str | None,
    accept_new_host_key: bool,
    replace_key: bool,
    ssh_key: Path | None,
    verbose: bool,
) -> None:
    """Make this machine a client of a byteback server, once; harmless when run again.

    It makes a key, introduces it to the server over a login of yours (ssh agent, keys
    or password), and proves that the key works before it says so.
    """
    log.set_up("byteback-setup-client", verbose=verbose)
    files = Files()
    options = Options(
        ssh_key or files.key, hostname, login, accept_new_host_key, replace_key
    )
    server = read_destination(files, destination)
    click.echo(
        format_outcome(enrol.set_up_client(files, server, options, TerminalQuestions()))
    )
    for path in enrol.own_schedules():
        click.echo(f"{path} starts backups as the package does: remove that line.")


def format_outcome(outcome: Outcome) -> str:
    """What was done, how to recognise it later, and what comes next."""
    done = _DONE.get(outcome.result, _DONE["enrolled"])
    return "\n".join(
        [
            done.format(host=outcome.host, server=outcome.server),
            f"  its key:      {outcome.fingerprint}",
            f"  server's key: {outcome.server_fingerprint}",
            f"  server runs:  byteback {escape(outcome.server_version)}",
            "The key was tried and works. Next: byteback-backup --verbose",
        ]
    )


def main() -> NoReturn:
    """Run the command and end with its exit status."""
    _boundary.run(command)
