"""Where a client's backups go from now on, in one field of the server's failure.

``CLIENT DESTINATION TYPE BASE64``: the client's name there, the new server as a
destination, and that server's host key. It decides to whom a machine sends all of its
files, so that nothing but plain names and numbers is taken (D60).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from byteback.errors import RefusedError, UsageError, quote
from byteback.model.destination import Destination, parse_destination
from byteback.model.hostname import is_host_name
from byteback.model.public_key import PublicKey, parse_public_key

MAX_TEXT = 2000  # characters: an RSA key of 8192 bits, and names
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.ASCII)
# A name or an address: nothing that ssh_config(5) would expand or a shell would read.
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}|[0-9A-Fa-f:.]{2,45}", re.ASCII)


class Moved(NamedTuple):
    """The new server of a client."""

    client: str
    destination: Destination
    key: PublicKey


def check_destination(text: str) -> Destination:
    """A destination that can be told to a client. Raises UsageError for another one.

    The path is left out: servers ignore it.
    """
    found = parse_destination(text)
    if not _USER.fullmatch(found.user) or not _HOST.fullmatch(found.host):
        raise UsageError(
            f"{quote(text)} cannot be told to a client",
            hint="it is USER@NAME: or USER@ADDRESS: in plain letters and digits",
        )
    return Destination(found.user, found.host, found.port)


def format_moved(client: str, destination: str, key: str) -> str:
    """The text that parse_moved reads back; ``key`` is ``TYPE BASE64``."""
    return f"{client} {destination} {key}"


def parse_moved(text: str | None) -> Moved:
    """Raises RefusedError for what is no such field."""
    words = (text or "")[: MAX_TEXT + 1].split(" ")
    if len(words) == 4 and len(text or "") <= MAX_TEXT and is_host_name(words[0]):
        try:
            destination = check_destination(words[1])
            return Moved(words[0], destination, parse_public_key(" ".join(words[2:])))
        except UsageError:
            pass
    raise RefusedError(
        "the server says that this machine was moved, and not understandably where",
        hint="ask its administrator, and set this machine up by hand",
    )
