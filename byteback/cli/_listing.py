"""byteback-restore's listings: shown while the server still searches."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from byteback.client.restore.query import Found, Query, Server, list_files
from byteback.model import listing
from byteback.model.listing import Entry

PROGRAM = "byteback-restore"
# The columns of a table are as wide as its first lines need: so many, or as many as
# come within so many seconds of the first.
WINDOW = 1000
WINDOW_S = 1.0


def show_files(server: Server, query: Query, *, as_json: bool, human: bool) -> None:
    """Print what matches as it is found; a note about it comes last."""
    if as_json:
        found = list_files(server, query, _show_json)
    else:
        table = _Table(listing.Table(human=human, first_seen=query.scope == "versions"))
        found = list_files(server, query, table.show)
        _echo(table.table.start())
    remark(found)


def remark(found: Found) -> None:
    """Tell what the reader must know about what was found."""
    if found.remark:
        click.echo(f"{PROGRAM}: note: {found.remark}", err=True)


class _Table:
    """A table that starts when its window is full, or over."""

    def __init__(self, table: listing.Table) -> None:
        self.table = table
        self._since: float | None = None  # when the first line came

    def show(self, entries: list[Entry]) -> None:
        _echo(self.table.add(entries))
        if not self.table.waiting:
            return
        now = time.monotonic()
        if self._since is None:
            self._since = now
        if self.table.waiting >= WINDOW or now - self._since > WINDOW_S:
            _echo(self.table.start())


def _show_json(entries: list[Entry]) -> None:
    _echo([listing.format_json(entry) for entry in entries])


def _echo(lines: Sequence[str]) -> None:
    if lines:
        click.echo("\n".join(lines))
