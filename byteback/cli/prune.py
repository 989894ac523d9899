"""byteback-prune: keep free space in the store."""

from __future__ import annotations

import shutil
import time
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
from byteback.model.free_space import Limits
from byteback.server.store.layout import Store


@click.command(
    "byteback-prune",
    context_settings=CONTEXT,
    epilog=exit_status_help(0, 1, 2, 10, 11, 13, 14, 75),
)
@click.option("-l", "--list", "show", is_flag=True, help="Show the order and stop.")
@click.option(
    "--timeline", is_flag=True, help="With --list: draw which days each host has."
)
@click.option("-p", "--prune", is_flag=True, help="Delete while space is short.")
@click.option(
    "-r", "--prune-force", "force", is_flag=True, help="Delete one snapshot now."
)
@click.option(
    "--approve", metavar="HOST", help="Accept a backup that is suddenly different."
)
@click.option(
    "--discard", metavar="HOST", help="Drop what HOST has sent since its last snapshot."
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
@click.option(
    "--confirm-clock",
    is_flag=True,
    help="With --prune: this machine's clock is right, although it has jumped.",
)
@verbose_option
@version_option
def command(
    show: bool,
    timeline: bool,
    prune: bool,
    force: bool,
    approve: str | None,
    discard: str | None,
    min_percent: float | None,
    max_percent: float | None,
    order: str,
    confirm_clock: bool,
    verbose: bool,
) -> None:
    """Delete the least important snapshots of all clients while space is short.

    Run it every few minutes, as root or as the byteback user. The last line that
    --list shows is the next to go.
    """
    log.set_up("byteback-prune", verbose=verbose)
    wishes = (show, prune or force, approve is not None, discard is not None)
    if sum(wishes) != 1 or (timeline and not show):
        raise UsageError(
            "give one of --list, --prune (or --prune-force), --approve and --discard"
        )
    if confirm_clock and not (prune or force):
        raise UsageError("--confirm-clock goes with --prune or --prune-force")
    if approve is not None:
        _echo(_approve(approve))
    elif discard is not None:
        _echo(_discard(discard))
    elif show:
        _echo(_draw() if timeline else _list(order))
    else:
        limits = (min_percent, max_percent)
        _prune(order, limits, force=force, confirm_clock=confirm_clock)


def _list(order: str) -> list[str]:
    from byteback.server.prune import run as prune
    from byteback.server.store import opening

    with opening.opened_store() as store:
        return prune.Pruner(store, order).listing()


def _draw() -> list[str]:
    from byteback.server.prune import report
    from byteback.server.prune import run as prune
    from byteback.server.store import opening

    width = shutil.get_terminal_size((88, 24)).columns
    with opening.opened_store() as store:
        return report.draw(store, prune.utc_now(), width)


def _approve(host: str) -> list[str]:
    from byteback.server.accounting import growth
    from byteback.server.store import opening

    with opening.opened_store(writes=True) as store:
        return growth.approve(store, host)


def _discard(host: str) -> list[str]:
    from byteback.server.prune import discard
    from byteback.server.store import opening

    with opening.opened_store(writes=True) as store:
        return discard.discard(store, host)


def _prune(
    order: str,
    limits: tuple[float | None, float | None],
    *,
    force: bool,
    confirm_clock: bool,
) -> None:
    from byteback.server.accounting import ledger
    from byteback.server.prune import idle
    from byteback.server.prune import limits as prune_limits
    from byteback.server.store import clock, opening, settings

    with (
        opening.quiet_elsewhere(),
        opening.opened_store(writes=True, may_mount=True) as store,
    ):
        # Before anything is written, which would be dated by the same clock.
        now = time.time()
        times = ledger.last_times(store)
        jump_s = clock.look(store, now, times, confirm=confirm_clock)
        if force:
            _force(store, order, jump_s)
        else:
            within = prune_limits.choose_limits(*limits)
            if jump_s is not None or not idle.is_idle(store, within, now):
                _prune_now(store, order, jump_s, within)
    settings.refuse(settings.faults())


def _force(store: Store, order: str, jump_s: float | None) -> None:
    from byteback.server.prune import run as prune

    _echo(prune.Pruner(store, order, jump_s=jump_s).prune_one())


def _prune_now(store: Store, order: str, jump_s: float | None, limits: Limits) -> None:
    from byteback.server.prune import run as prune

    pruner = prune.Pruner(store, order, jump_s=jump_s)
    pruner.prune(limits)
    pruner.refuse_full_disc()


def _echo(lines: list[str]) -> None:
    click.echo("".join(f"{line}\n" for line in lines), nl=False)


def main() -> NoReturn:
    """Run the program."""
    _boundary.run(command)
