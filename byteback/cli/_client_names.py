"""Offers the names of this server's clients when a shell completes them."""

from __future__ import annotations

import click

from byteback.errors import BytebackError
from byteback.server.store.layout import find_store


def complete_client(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[str]:
    """The clients whose names begin so; none for a user who may not see them.

    Nothing is said about what went wrong, for it would end up in the command line.
    """
    try:
        names = find_store().hosts()
    except (BytebackError, OSError):
        return []
    wanted = incomplete.lower()
    return [name for name in names if name.lower().startswith(wanted)]
