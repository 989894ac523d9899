"""Goes with the server's word to another server, to which it has moved this machine.

That word decides who gets all of this machine's files from now on. So it is believed
only from the server whose key was pinned at set-up, in a scheduled backup or one like
it, and where the administrator has not written ``false`` in ``follow_moves`` (D60).
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from byteback.client.settings import Files, read_follow_moves
from byteback.client.transport.connection import Connection, connect
from byteback.client.transport.retry import RetryPolicy, retrying
from byteback.errors import BytebackError, MovedError, RefusedError, UsageError, quote
from byteback.model.destination import Destination, format_destination
from byteback.system.files import write_atomically
from byteback.system.ssh import known_hosts, openssh
from byteback.wire.moved import Moved, parse_moved

logger = logging.getLogger(__name__)

MOST = 3  # servers to which one backup follows


@dataclass(frozen=True)
class Here:
    """This machine, and the server that it has backed up to so far."""

    destination: Destination
    key: Path
    retry: RetryPolicy
    files: Files


def follow(
    here: Here, error: MovedError, tell: Callable[[str], None], *, is_given: bool
) -> None:
    """Make the new server this machine's, if that server takes it; ``tell`` of it.

    ``is_given`` says that the destination is the command line's, and not the files'.
    Nothing is changed before the new server has answered, under the host key that the
    old one told, to this machine's key as the client that it is. Then the host key
    comes first and the destination last, so that after a crash the next backup asks
    the old server again. Raises ``error``, or another BytebackError, if not.
    """
    if is_given:
        raise error  # its hint says how the files are changed
    _check_may_follow(here, error)
    moved = parse_moved(error.moved_to)
    line = _pin_line(here, moved)
    _check_takes_us(here, moved, line)
    try:
        _pin(here.files, line)
        text = f"{format_destination(moved.destination)}\n"
        write_atomically(here.files.destination, text.encode("ascii"))
    except OSError as failure:
        where = quote(str(here.files.directory))
        raise UsageError(f"cannot write to {where}: {failure.strerror}") from None
    tell(
        f"{_name(here.destination)} moved this machine to {_name(moved.destination)}, "
        f"whose host key is {moved.key.fingerprint}: backups go there from now on"
    )


def _check_may_follow(here: Here, error: MovedError) -> None:
    if not read_follow_moves(here.files):
        error.message += "; this machine does not follow, for follow_moves says false"
        error.hint = f"ask the server's administrator; to go there: {error.hint}"
        raise error
    name = openssh.pinned_name(here.destination)
    if not known_hosts.find_keys([here.files.known_hosts], [name]):
        error.message += "; this machine does not follow a server without a pinned key"
        raise error


def _pin_line(here: Here, moved: Moved) -> str:
    """The line of known_hosts for the new server.

    Raises RefusedError if this machine knows another key by that name, be it the old
    server's.
    """
    name = openssh.pinned_name(moved.destination)
    known = known_hosts.find_keys([here.files.known_hosts], [name])
    is_known = any(one.blob == moved.key.blob and not one.is_revoked for one in known)
    if known and not is_known:
        raise RefusedError(
            f"{_name(here.destination)} moved this machine to "
            f"{_name(moved.destination)}, with the host key {moved.key.fingerprint}, "
            f"and {quote(str(here.files.known_hosts))} has another one for that name",
            hint="ask the administrators of both; nothing was changed here",
        )
    return known_hosts.format_line(name, moved.key.kind, moved.key.blob)


def _check_takes_us(here: Here, moved: Moved, line: str) -> None:
    """Raise a BytebackError if the new server does not serve this machine's key."""
    with tempfile.TemporaryDirectory(prefix="byteback-") as directory:
        pinned = Path(directory, "known_hosts")
        pinned.write_text(f"{line}\n", "ascii")
        with connect(moved.destination, here.key, pinned) as connection:
            try:
                found = _client_there(connection, here.retry)
            except BytebackError as error:
                error.message = (
                    f"{_name(here.destination)} moved this machine to another server, "
                    f"where it cannot go: {error.message}"
                )
                error.hint = (
                    "nothing was changed here, and the next backup tries it again; "
                    "if that fails too, ask the administrators of both servers"
                )
                raise
    if found != moved.client:
        raise RefusedError(
            f"{_name(here.destination)} moved this machine to "
            f"{_name(moved.destination)} as {quote(moved.client)}, and there it is "
            f"{quote(found)}",
            hint="ask the administrators of both; nothing was changed here",
        )


def _client_there(connection: Connection, retry: RetryPolicy) -> str:
    hello = retrying(connection.ping, retry, renew=connection.renew)
    return hello.host


def _pin(files: Files, line: str) -> None:
    """Add a line to known_hosts. Others stay: the old server may move us back."""
    before = ""
    with contextlib.suppress(FileNotFoundError):
        before = files.known_hosts.read_text("utf-8", "surrogateescape")
    if line in before.splitlines():
        return
    if before and not before.endswith("\n"):
        before += "\n"
    text = f"{before}{line}\n".encode("utf-8", "surrogateescape")
    write_atomically(files.known_hosts, text)


def _name(destination: Destination) -> str:
    return quote(format_destination(destination))
