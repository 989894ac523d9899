"""byteback-status: how is each client's backup?"""

from __future__ import annotations

import gc
import os
import time
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
from byteback.errors import (
    BytebackError,
    NoSuchClientError,
    NotRootError,
    NotSetUpError,
    UsageError,
)
from byteback.model.status import Report
from byteback.server.store import layout

HISTORY = 2000  # backups of one client: all that the ledger keeps


@click.command(
    "byteback-status",
    context_settings=CONTEXT,
    epilog=exit_status_help(0, 1, 2, 10, 13)
    + "\n  With --check: 0 well, 1 warning, 2 critical, 3 unknown",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--check", is_flag=True, help="One line for a monitoring system.")
@click.option(
    "--prometheus", is_flag=True, help="Print metrics in Prometheus's text format."
)
@click.option(
    "--html",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write a page for browsers into DIR.",
)
@click.option(
    "--notify", is_flag=True, help="Tell what has changed, as server.toml says."
)
@click.option(
    "--from",
    "sources",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Read what --json printed on another server, for a report of several.",
)
@click.option("--scrub", is_flag=True, help="Check the whole store, if it is due.")
@verbose_option
@version_option
@click.argument("hosts", nargs=-1, metavar="[CLIENT]...")
def command(
    hosts: tuple[str, ...],
    *,
    as_json: bool,
    check: bool,
    prometheus: bool,
    html: Path | None,
    notify: bool,
    scrub: bool,
    sources: tuple[Path, ...],
    verbose: bool,
) -> None:
    """Tell how each client's backup is, and how the store itself is.

    Without CLIENT: a table of all clients, and everything that is wrong. With CLIENT:
    that client's backups. Run it on the server, as root or as the byteback user. It
    asks no client. With --from it needs no store, and every user may run it.
    """
    log.set_up("byteback-status", verbose=verbose)
    modes = (as_json, check, prometheus, html is not None, notify, scrub)
    if sum(modes) > 1:
        raise UsageError(
            "give only one of --json, --check, --prometheus, --html, --notify, --scrub"
        )
    if (html or notify or scrub) and hosts:
        raise UsageError("--html, --notify and --scrub are for all clients: name none")
    if sources and (hosts or as_json or prometheus or notify or scrub):
        raise UsageError("--from goes with --check, with --html, or by itself")
    if html is not None:
        _write_page(html, sources)
        return
    if notify or scrub:
        _look_after(scrub=scrub)
        return
    if check:
        _check(hosts, sources)
    report = _collect(hosts, sources, HISTORY if hosts else None)
    click.echo(_format(report, hosts, as_json=as_json, prometheus=prometheus), nl=False)


def _collect(
    hosts: tuple[str, ...], sources: tuple[Path, ...], history: int | None = None
) -> Report:
    from byteback.server.status import collect
    from byteback.server.store import opening

    if sources:
        from byteback.server.status import reported

        return reported.read(sources, time.time())
    with opening.opened_store() as store:
        return collect.collect(
            store, time.time(), names=hosts, history=history, all_times=bool(history)
        )


def _write_page(directory: Path, sources: tuple[Path, ...]) -> None:
    from byteback.server.status import page, publish, reported
    from byteback.server.store import opening

    if sources:
        report = reported.read(sources, time.time())
        publish.write_page(directory, list(page.render(report, [])))
        return
    with opening.opened_store() as store:
        files = publish.render_page(store, time.time())
    publish.write_page(directory, files)


def _look_after(*, scrub: bool) -> None:
    """Do the work of the two timers."""
    from byteback.server.status import notify
    from byteback.server.status import scrub as scrubbing
    from byteback.server.store import mounting, opening

    if os.geteuid() != 0:
        raise NotRootError("only root can do that")
    if scrub:
        with opening.quiet_elsewhere():
            store = layout.find_store()
            mounting.check(store)
            scrubbing.scrub(store)
    else:
        notify.notify(opening.opened_store)


def _format(
    report: Report, hosts: tuple[str, ...], *, as_json: bool, prometheus: bool
) -> str:
    if as_json or prometheus:
        from byteback.model import metrics

        if prometheus:
            return metrics.format_metrics(report)
        return metrics.format_json(report, with_backups=bool(hosts)) + "\n"
    from byteback.model import status_text
    from byteback.system.local_zone import LocalZone

    lines = []
    if not hosts:
        lines = status_text.format_report(report, LocalZone())
    for client in report.clients if hosts else ():
        lines += [f"{client.name}:", *status_text.format_history(client, LocalZone())]
    return "".join(f"{line}\n" for line in lines)


def _check(hosts: tuple[str, ...], sources: tuple[Path, ...]) -> NoReturn:
    """Print a monitoring plugin's line and end with its status, whatever goes wrong."""
    from byteback.model import status_text

    try:
        report = _collect(hosts, sources)
    except BytebackError as error:
        # A name that this server does not know is a fault of the check, not of backups.
        is_gone = isinstance(error, NotSetUpError)
        is_critical = is_gone and not isinstance(error, NoSuchClientError)
        word, status = ("CRITICAL", 2) if is_critical else ("UNKNOWN", 3)
        click.echo(f"BYTEBACK {word} - {error.message}")
        raise click.exceptions.Exit(status) from None
    line, status = status_text.format_check(report)
    click.echo(line)
    raise click.exceptions.Exit(status)


def main() -> NoReturn:
    """Run the program."""
    # A report of many clients is a great many objects without a circle among them:
    # to look for circles again and again takes a twentieth of all.
    gc.disable()
    _boundary.run(command)
