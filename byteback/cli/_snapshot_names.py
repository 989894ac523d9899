"""Offers the names of this machine's snapshots when a shell completes them."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

import click

from byteback.client.restore.query import Query, Server, list_files
from byteback.errors import BytebackError

LIMIT_S = 3.0  # a person waits no longer for a key
EVERY_COPY_OF_THE_ROOT = Query(("/",), scope="copies")


def complete_snapshot(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[str]:
    """The snapshots that the server has, oldest first; none if it does not say soon.

    Nothing is said about what went wrong, for it would end up in the command line.
    """
    given = context.params
    server = Server(given.get("destination"), given.get("ssh_key"))
    try:
        with _time_limit():
            if given.get("host"):
                from byteback.cli._other_machine import find_server

                server = find_server(given["host"], None)
            found = list_files(server, EVERY_COPY_OF_THE_ROOT)
    except (BytebackError, OSError):
        return []
    names = dict.fromkeys(entry.snapshot for entry in found.entries)
    return [name for name in names if name.startswith(incomplete)]


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    """Raise TimeoutError, an OSError, in a block that takes longer than LIMIT_S."""
    before = signal.signal(signal.SIGALRM, _raise_timeout)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _raise_timeout(_number: int, _frame: FrameType | None) -> NoReturn:
    raise TimeoutError
