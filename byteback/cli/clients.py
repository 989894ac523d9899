"""byteback-clients: look after the clients of this server as a whole."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
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
from byteback.cli._questions import TerminalQuestions
from byteback.errors import BytebackError, UsageError, quote
from byteback.model import fleet
from byteback.model.invitation import format_word, parse_duration
from byteback.model.key_line import ENROL, RECEIVE
from byteback.model.public_key import MAX_LINE, PublicKey, parse_public_key
from byteback.server.store.layout import USER, Store
from byteback.system import host
from byteback.system.local_zone import LocalZone

PROGRAM = "byteback-clients"
STATUSES = exit_status_help(0, 1, 2, 9, 10, 11, 13, 75)


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


def _client_argument(name: str) -> Callable[[Function], Function]:
    return click.argument(name, metavar="CLIENT", shell_complete=complete_client)


def _dry_run_option(function: Function) -> Function:
    return click.option(
        "-n", "--dry-run", is_flag=True, help="Show the steps, change nothing."
    )(function)


@_subcommand("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@_clients_argument
def list_clients(clients: tuple[str, ...], *, as_json: bool, verbose: bool) -> None:
    """List all clients, or some: their keys, and what the store has of them."""
    from byteback.server.fleet import roster
    from byteback.server.store import opening

    log.set_up(PROGRAM, verbose=verbose)
    with opening.opened_store() as store:
        found = roster.collect(store, clients)
    if as_json:
        click.echo(fleet.format_json(found))
    else:
        _echo(fleet.format_list(found))


@_subcommand("key")
@click.option(
    "--replace",
    "new",
    metavar="KEY",
    help="Let KEY in, and no other one: a file, - for standard input, or its text.",
)
@click.option("--revoke", is_flag=True, help="Let no key of the client's in.")
@_dry_run_option
@_client_argument("client")
def key(
    client: str, *, new: str | None, revoke: bool, dry_run: bool, verbose: bool
) -> None:
    """Show the keys of a client, replace them, or take them away."""
    log.set_up(PROGRAM, verbose=verbose)
    if new is not None and revoke:
        raise UsageError("give only one of --replace and --revoke")
    if dry_run and new is None and not revoke:
        raise UsageError("--dry-run goes with --replace or --revoke")
    if new is not None:
        _echo(_replace_key(client, _read_key(new), dry_run=dry_run))
    elif revoke:
        _echo(_revoke_key(client, dry_run=dry_run))
    else:
        _echo(_show_keys(client))


def _show_keys(client: str) -> list[str]:
    from byteback.server.fleet import keys
    from byteback.server.store import opening

    with opening.opened_store() as store:
        return fleet.format_keys(keys.show(store, client))


def _replace_key(client: str, new: PublicKey, *, dry_run: bool) -> list[str]:
    from byteback.server.fleet import keys
    from byteback.server.store import opening

    program = host.program_path(RECEIVE)
    with opening.opened_store(writes=not dry_run) as store:
        return keys.replace(store, client, new, program, dry_run=dry_run)


def _revoke_key(client: str, *, dry_run: bool) -> list[str]:
    from byteback.server.fleet import keys
    from byteback.server.store import opening

    with opening.opened_store(writes=not dry_run) as store:
        return keys.revoke(store, client, dry_run=dry_run)


def _read_key(given: str) -> PublicKey:
    if " " in given.strip():
        return parse_public_key(given)
    try:
        if given == "-":
            return parse_public_key(sys.stdin.read(MAX_LINE))
        with Path(given).open(encoding="utf-8") as file:
            return parse_public_key(file.read(MAX_LINE))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read the key {quote(given)}: {error}",
            hint="give the client's key.pub, or the text in it",
        ) from None


@_subcommand("invite")
@click.option(
    "--valid",
    metavar="TIME",
    default="7d",
    show_default=True,
    help="How long it serves: 7d, 12h, 30m.",
)
@click.option(
    "--host-key",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="This server's public host key.  [default: sshd's in /etc/ssh]",
)
@click.option("--open", "show", is_flag=True, help="Show the invitations not used yet.")
@click.option("--withdraw", metavar="NUMBER", help="End an invitation not used yet.")
@_dry_run_option
@click.argument("client", metavar="[CLIENT]", default="")
def invite(
    client: str,
    *,
    valid: str,
    host_key: Path | None,
    show: bool,
    withdraw: str | None,
    dry_run: bool,
    verbose: bool,
) -> None:
    """Print a word by which one machine enrols without a login, once.

    With CLIENT the machine gets that name, and no other one. The word is all that is on
    standard output.
    """
    log.set_up(PROGRAM, verbose=verbose)
    if sum((show, withdraw is not None, bool(client))) > 1:
        raise UsageError("give only one of CLIENT, --open and --withdraw")
    if show:
        _show_invitations()
    elif withdraw is not None:
        _withdraw(withdraw, dry_run=dry_run)
    else:
        _invite(client, parse_duration(valid), host_key, dry_run=dry_run)


def _show_invitations() -> None:
    from byteback.server.access import invitations
    from byteback.server.store import opening

    with opening.opened_store() as store:
        found = invitations.open_invitations(store)
    _echo([fleet.describe_invitation(one, LocalZone()) for one in found])


def _withdraw(number: str, *, dry_run: bool) -> None:
    from byteback.server.access import invitations
    from byteback.server.store import opening

    with opening.opened_store(writes=not dry_run) as store:
        if not dry_run:
            invitations.withdraw(store, number)
    _echo([f"{'would withdraw' if dry_run else 'withdrew'} the invitation {number}"])


def _invite(client: str, valid_s: int, path: Path | None, *, dry_run: bool) -> None:
    from byteback.server.access import invitations
    from byteback.server.store import opening

    key = invitations.read_host_key(path)
    program = host.program_path(ENROL)
    with opening.opened_store(writes=not dry_run) as store:
        if dry_run:
            _echo([f"would invite {client or 'any new client'}"])
            return
        word, made = invitations.invite(store, client, valid_s, key, program)
    text = format_word(word)
    click.echo(text)
    name = f" --hostname {client}" if client else ""
    until = fleet.format_time(made.until, LocalZone())
    click.echo(
        f"Once, until {until}, on the client:\n"
        f"  sudo byteback-setup-client --destination {USER}@{host.full_host_name()}:"
        f"{name} --invitation {text}",
        err=True,
    )


@_subcommand("retire")
@click.option(
    "--keep",
    "keep_days",
    metavar="DAYS",
    type=click.IntRange(min=7),
    help="Remove what is left of it after so many days.  [default: never]",
)
@click.option("--undo", is_flag=True, help="Let a retired client in again.")
@_dry_run_option
@_client_argument("client")
def retire(
    client: str, *, keep_days: int | None, undo: bool, dry_run: bool, verbose: bool
) -> None:
    """Refuse a client from now on, and keep its history.

    Its snapshots go as those of all clients do, when space is short.
    """
    from byteback.server.fleet import retiring

    log.set_up(PROGRAM, verbose=verbose)
    if undo and keep_days is not None:
        raise UsageError("give only one of --keep and --undo")
    with _changing(dry_run=dry_run) as store:
        if undo:
            lines = retiring.take_back(store, client, dry_run=dry_run)
        else:
            lines = retiring.retire(store, client, keep_days, dry_run=dry_run)
    _echo(lines)


@_subcommand("remove")
@click.option("--yes", is_flag=True, help="Do not ask for the client's name.")
@_dry_run_option
@_client_argument("client")
def remove(client: str, *, yes: bool, dry_run: bool, verbose: bool) -> None:
    """Remove a client with all its backups, sealed ones too, and its key."""
    from byteback.server.fleet import removal

    log.set_up(PROGRAM, verbose=verbose)
    with _changing(dry_run=True) as store:
        name, steps = removal.plan(store, client)
    if dry_run:
        _echo([f"would remove from {name}: {step}" for step in steps])
        return
    if not yes:
        _confirm_removal(name, steps)
    with _changing(dry_run=False) as store:
        _echo(removal.remove(store, name))


@_subcommand("rename")
@_dry_run_option
@_client_argument("old")
@click.argument("new", metavar="NEW")
def rename(old: str, new: str, *, dry_run: bool, verbose: bool) -> None:
    """Give a client another name: history, key, ledger and seals follow."""
    from byteback.server.fleet import renaming

    log.set_up(PROGRAM, verbose=verbose)
    with _changing(dry_run=dry_run) as store:
        act = renaming.plan if dry_run else renaming.rename
        _echo(act(store, old, new))


@_subcommand("move")
@click.option(
    "--destination",
    "given",
    metavar="D",
    help="How clients reach SERVER.  [default: byteback@SERVER:]",
)
@click.option("--undo", is_flag=True, help="Let the client stay, or come back.")
@_dry_run_option
@_client_argument("client")
@click.argument("server", metavar="[SERVER]", default="")
def move(
    client: str,
    server: str,
    *,
    given: str | None,
    undo: bool,
    dry_run: bool,
    verbose: bool,
) -> None:
    """Move a client to a second server, with all of its history.

    SERVER is one that may fetch from this one: byteback-clients replica shows them. It
    takes the client over when its root says byteback-replicate --accept there.
    """
    from byteback.server.fleet import moving
    from byteback.wire.moved import check_destination

    log.set_up(PROGRAM, verbose=verbose)
    if undo == bool(server):
        raise UsageError("give either a SERVER or --undo")
    with _changing(dry_run=dry_run) as store:
        if undo:
            _echo(moving.undo(store, client, dry_run=dry_run))
        else:
            there = check_destination(given or f"{USER}@{server}:")
            _echo(moving.move(store, client, server, there, dry_run=dry_run))


@_subcommand("replica")
@click.option(
    "--key",
    "of_server",
    metavar="KEY",
    help="Let KEY read all snapshots: a file, - for standard input, or its text.",
)
@click.option("--revoke", is_flag=True, help="Take the second server's key away.")
@_dry_run_option
@click.argument("server", metavar="[SERVER]", default="")
def replica(
    server: str, *, of_server: str | None, revoke: bool, dry_run: bool, verbose: bool
) -> None:
    """Let a second server copy all backups, or show which ones may.

    Its key reads the finished snapshots of all clients, and can do nothing else.
    """
    log.set_up(PROGRAM, verbose=verbose)
    if (of_server is not None) + revoke != bool(server):
        raise UsageError("give a SERVER with one of --key and --revoke, or nothing")
    if of_server is not None:
        _echo(_let_replica_in(server, _read_key(of_server), dry_run=dry_run))
    elif revoke:
        _echo(_revoke_replica(server, dry_run=dry_run))
    else:
        _echo(_show_replicas())


def _show_replicas() -> list[str]:
    from byteback.server.replicate import keys
    from byteback.server.store import opening

    with opening.opened_store() as store:
        found = keys.show(store)
    return [f"{name}  {found[name].fingerprint}" for name in sorted(found)]


def _let_replica_in(server: str, new: PublicKey, *, dry_run: bool) -> list[str]:
    from byteback.server.replicate import keys
    from byteback.server.store import opening

    program = host.program_path(RECEIVE)
    with opening.opened_store(writes=not dry_run) as store:
        return keys.let_in(store, server, new, program, dry_run=dry_run)


def _revoke_replica(server: str, *, dry_run: bool) -> list[str]:
    from byteback.server.replicate import keys
    from byteback.server.store import opening

    with opening.opened_store(writes=not dry_run) as store:
        return keys.revoke(store, server, dry_run=dry_run)


def _confirm_removal(name: str, steps: list[str]) -> None:
    questions = TerminalQuestions()
    if not questions.can_confirm():
        raise UsageError(
            f"the removal of {quote(name)} must be confirmed on a terminal",
            hint="say --yes where there is none",
        )
    _echo([f"This removes from {name}, for good: {step}" for step in steps])
    typed = click.prompt("Type the client's name to go on", err=True, default="")
    if typed != name:
        raise BytebackError("nothing was removed: that is not the client's name")


@contextlib.contextmanager
def _changing(*, dry_run: bool) -> Iterator[Store]:
    """The store for a change that only root makes, with its lock, but in a dry run."""
    from byteback.server.fleet import finish
    from byteback.server.store import opening
    from byteback.system import privilege

    privilege.require_root("only root can retire, rename, remove and move clients")
    with opening.opened_store(writes=not dry_run) as store:
        if dry_run:
            yield store
            return
        with finish.locked(store):
            yield store


def _echo(lines: list[str]) -> None:
    click.echo("".join(f"{line}\n" for line in lines), nl=False)


def main() -> NoReturn:
    """Run the program."""
    _boundary.run(command)
