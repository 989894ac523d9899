"""byteback-replicate: fetch what another server has, as a second copy of it all."""

from __future__ import annotations

import os
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
from byteback.errors import (
    BytebackError,
    InterruptedBySignalError,
    UsageError,
    quote,
)
from byteback.model.key_line import RECEIVE
from byteback.model.public_key import PublicKey
from byteback.server.replicate import fetch, sources
from byteback.server.replicate.fetch import Outcome
from byteback.server.replicate.sources import Prepared, Source
from byteback.server.setup import schedule
from byteback.server.setup.steps import StepRunner
from byteback.server.store import layout, opening
from byteback.system import host, privilege
from byteback.wire.moving import Move

PROGRAM = "byteback-replicate"
SHOWN = 5


@click.command(
    PROGRAM,
    context_settings=CONTEXT,
    epilog=exit_status_help(0, 1, 2, 9, 10, 11, 12, 13, 14, 75),
)
@click.option(
    "--from",
    "wanted",
    metavar="D",
    help="The first server, as byteback@first.example.com:  [default: all set up]",
)
@click.option(
    "--all",
    "all_of_them",
    is_flag=True,
    help="All that are set up, and no error if there is none: for the timer.",
)
@click.option("--set-up", is_flag=True, help="Make a key for it and pin its own, once.")
@click.option(
    "--accept-new-host-key",
    is_flag=True,
    help="With --set-up: believe a server that was never seen before.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Show what would be brought.")
@click.option(
    "--checksum",
    is_flag=True,
    help="Compare the contents of all files, not their times.",
)
@click.option(
    "--verify",
    is_flag=True,
    help="Compare one snapshot of each client on both servers, drawn at random.",
)
@click.option(
    "--adopt",
    is_flag=True,
    help="Take CLIENTs that are here for copies, whose snapshots came another way.",
)
@click.option(
    "--accept",
    is_flag=True,
    help="Take over CLIENTs, or all, that byteback-clients moves here.",
)
@click.option(
    "--host-key",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="With --accept: this server's public host key.  [default: sshd's in /etc/ssh]",
)
@click.argument("clients", nargs=-1, metavar="[CLIENT]...")
@verbose_option
@version_option
def command(
    wanted: str | None,
    clients: tuple[str, ...],
    *,
    all_of_them: bool,
    set_up: bool,
    accept_new_host_key: bool,
    dry_run: bool,
    checksum: bool,
    verify: bool,
    adopt: bool,
    accept: bool,
    host_key: Path | None,
    verbose: bool,
) -> None:
    """Bring the snapshots of another server here, of all clients or of some.

    Run it on the second server, as root: once with --set-up, and then by its timer.
    """
    log.set_up(PROGRAM, verbose=verbose)
    if set_up:
        others = (clients, dry_run, checksum, verify, adopt, all_of_them, accept)
        if wanted is None or any(others):
            raise UsageError("--set-up goes with --from, and with nothing else")
        privilege.require_root("only root can set up a first server")
        _set_up(wanted, accept_new=accept_new_host_key)
        return
    modes = verify + checksum + (dry_run or accept)
    _check_modes(all_of_them + (wanted is not None), modes)
    if all_of_them and not sources.are_set_up():
        return
    _become_user()
    if adopt:
        _adopt(wanted, clients)
    if accept:
        _accept(sources.configured(wanted), clients, host_key, dry_run=dry_run)
    elif dry_run or verify:
        (_verify if verify else _show)(sources.configured(wanted), clients)
    else:
        _fetch_all(sources.configured(wanted), clients, checksum=checksum)


def _check_modes(wanted: int, modes: int) -> None:
    if wanted > 1 or modes > 1:
        raise UsageError(
            "give only one of --all and --from, and one of --dry-run or --accept, "
            "--checksum and --verify"
        )


def _set_up(wanted: str, *, accept_new: bool) -> None:
    confirm = TerminalQuestions().confirm
    made = sources.set_up(wanted, confirm, accept_new=accept_new)
    program = host.program_path(PROGRAM)
    for outcome in schedule.provide_schedule(schedule.REPLICATE, program, StepRunner()):
        click.echo(f"{outcome.kind + ':':<9}{_boundary.escape_line(outcome.text)}")
    _tell(made)


def _become_user() -> None:
    """Put root's rights down for good: what comes from the first server is hostile."""
    layout.find_store()
    layout.become_store_user()
    privilege.show_own_counters()
    os.chdir("/")  # root's may be closed to the user


def _show(found: list[Source], clients: tuple[str, ...]) -> None:
    for source in found:
        with opening.opened_store() as store:
            lines = fetch.show(store, source, clients)
        click.echo("".join(f"{line}\n" for line in lines), nl=False)


def _adopt(wanted: str | None, clients: tuple[str, ...]) -> None:
    from byteback.server.replicate import admission

    if wanted is None or not clients:
        raise UsageError("--adopt goes with --from and the names of clients")
    with opening.opened_store(writes=True) as store, fetch.locked(store):
        for source in sources.configured(wanted):
            for client in clients:
                admission.adopt(store, client, source.name)


def _accept(
    found: list[Source], clients: tuple[str, ...], path: Path | None, *, dry_run: bool
) -> None:
    from byteback.server.access import invitations
    from byteback.server.replicate import accepting

    if len(found) > 1:
        raise UsageError("--accept needs --from, for there are several first servers")
    host_key = invitations.read_host_key(path)
    if dry_run:
        _say_none(found[0], moves := accepting.waiting(found[0], clients))
        for move in moves:
            click.echo(f"would accept {move.client}")
    else:
        _accept_all(found[0], clients, host_key)


def _say_none(source: Source, moves: list[Move]) -> None:
    if not moves:
        click.echo(f"no client is being moved here by {quote(source.name)}")


def _accept_all(source: Source, clients: tuple[str, ...], host_key: PublicKey) -> None:
    """Take clients over; one that fails does not hold up the others."""
    from byteback.server.replicate import accepting

    errors: list[BytebackError] = []
    program = host.program_path(RECEIVE)
    with opening.opened_store(writes=True) as store, fetch.locked(store):
        # Not before: another run may have taken one of them over meanwhile.
        _say_none(source, moves := accepting.waiting(source, clients))
        for move in moves:
            try:
                click.echo(accepting.accept(store, source, move, host_key, program))
            except InterruptedBySignalError:
                raise
            except BytebackError as error:
                errors.append(error)
    for further in errors[1:]:
        _boundary.print_error(PROGRAM, further)
    if errors:
        raise errors[0]


def _verify(found: list[Source], clients: tuple[str, ...]) -> None:
    from byteback.server.replicate import verify

    with opening.opened_store() as store, fetch.locked(store):
        for source in found:
            for line in verify.verify(store, source, clients):
                click.echo(line)


def _fetch_all(
    found: list[Source], clients: tuple[str, ...], *, checksum: bool
) -> None:
    """Fetch from each first server; the first error is raised after all of them."""
    errors: list[BytebackError] = []
    within_s = fetch.share_s(len(found))
    with opening.opened_store(writes=True) as store, fetch.locked(store):
        for source in found:
            try:
                outcome = fetch.fetch(
                    store, source, clients, within_s=within_s, checksum=checksum
                )
            except InterruptedBySignalError:
                raise
            except BytebackError as error:
                errors.append(error)
                continue
            if outcome.problems:
                errors.append(_error(source, outcome))
    for further in errors[1:]:
        _boundary.print_error(PROGRAM, further)
    if errors:
        raise errors[0]


def _error(source: Source, outcome: Outcome) -> BytebackError:
    """One error for all that went wrong, with the status that all of it has."""
    told = list(outcome.problems)
    if len(told) > SHOWN:
        told[SHOWN - 1 :] = [f"and {len(told) - SHOWN + 1} more, in the system log"]
    statuses = {error.exit_status for error in outcome.errors}
    hints = {error.hint for error in outcome.errors if error.hint}
    error = BytebackError(
        f"not all that {quote(source.name)} has was brought",
        hint=hints.pop() if len(hints) == 1 else "the system log has the whole of it",
        details=told,
    )
    if len(statuses) == 1 and len(outcome.errors) == len(outcome.problems):
        error.exit_status = statuses.pop()
    return error


def _tell(made: Prepared) -> None:
    name = host.full_host_name()
    click.echo(
        f"The first server is believed by its key {made.host_key.fingerprint}.\n"
        "On the first server, as root, let this one in:\n"
        f"  byteback-clients replica {name} --key '{made.key.line}'\n"
        "From then on byteback-replicate fetches by its timer."
    )


def main() -> NoReturn:
    """Run the command."""
    _boundary.run(command)
