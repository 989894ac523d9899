"""byteback-setup-client-receive: enrol a client on the server."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import NoReturn

import click

import byteback
from byteback import log
from byteback.cli import _boundary
from byteback.cli._options import (
    CONTEXT,
    exit_status_help,
    verbose_option,
    version_option,
)
from byteback.errors import RefusedError, UsageError
from byteback.model.key_line import RECEIVE
from byteback.server.access import enrolment
from byteback.server.access.enrolment import EnrolRequest
from byteback.server.store import layout, presence
from byteback.system import host


@click.command(
    "byteback-setup-client-receive",
    # The key's comment may hold words that begin with a dash.
    context_settings={**CONTEXT, "allow_interspersed_args": False},
    epilog=exit_status_help(0, 1, 2, 9, 10, 11, 13),
)
@click.option(
    "--replace-key",
    is_flag=True,
    help="Give NAME, its history included, to this key instead of the one it has.",
)
@click.option(
    "--from", "address", metavar="ADDR", help="Let the key in from ADDR only."
)
@click.option("--json", "as_json", is_flag=True, help="Answer with one line of JSON.")
@click.option(
    "--forced",
    is_flag=True,
    help="Take the request from SSH_ORIGINAL_COMMAND (for authorized_keys).",
)
@click.option(
    "--invited",
    metavar="TOKEN",
    help="As --forced, by the invitation TOKEN (for authorized_keys).",
)
@verbose_option
@version_option
@click.argument("words", nargs=-1, metavar="NAME TYPE BASE64 [COMMENT]...")
def command(
    words: tuple[str, ...],
    *,
    replace_key: bool,
    address: str | None,
    as_json: bool,
    forced: bool,
    invited: str | None,
    verbose: bool,
) -> None:
    """Make the machine NAME a client of this server, with the public key that follows.

    byteback-setup-client runs this over ssh, as the store's user; root may run it by
    hand. It makes NAME/current and adds the key's line to authorized_keys.
    """
    log.set_up("byteback-setup-client-receive", verbose=verbose)
    if forced or invited is not None:
        if words or replace_key or as_json or address is not None:
            raise UsageError("--forced takes everything from SSH_ORIGINAL_COMMAND")
        request = enrolment.parse_forced(os.environ.get("SSH_ORIGINAL_COMMAND"))
    else:
        checked = None if address is None else enrolment.check_address(address)
        request = replace(
            enrolment.parse_words(words),
            replace_key=replace_key,
            address=checked,
            as_json=as_json,
        )
    answer(request, invited)


def answer(request: EnrolRequest, token: str | None = None) -> None:
    """Enrol, and say so in one line."""
    layout.become_store_user()
    layout.check_store_user()
    store = layout.own_store()
    if presence.read_mark() is not None:  # else enrolling itself says what is wrong
        presence.check_writable(store)
    if token is not None and request.replace_key:
        raise RefusedError("an invitation takes no client's name over")
    done = enrolment.enrol(store, request, host.program_path(RECEIVE), token)
    if request.as_json:
        fields = {
            "byteback": byteback.__version__,
            "result": done.result,
            "host": done.host,
            "fingerprint": done.fingerprint,
        }
        click.echo(json.dumps(fields))
        return
    # byteback-setup-client reads this line too: it sends the old tool's request, which
    # has no room for options, until it knows what the server is.
    click.echo(
        f"byteback {byteback.__version__}: "
        f"{done.result} {done.host} with key {done.fingerprint}"
    )


def main() -> NoReturn:
    """Run the command and end with its exit status."""
    _boundary.run(command, with_fields=True)
