"""The destination of backups: ``[user@]host[:[path]]`` or ``ssh://[user@]host[:port]/``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from byteback.errors import UsageError, quote

DEFAULT_USER = "byteback"
EXAMPLE = "byteback@backuphost.example.com:"
_LIKE_A_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)


@dataclass(frozen=True)
class Destination:
    """A server as the user wrote it. ``path`` is for show: the server ignores it."""

    user: str
    host: str  # a name, an address or an ssh_config alias; IPv6 without brackets
    port: int | None = None
    path: str = ""

    @property
    def rsync_host(self) -> str:
        """The host as rsync wants it: an IPv6 address in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host


def parse_destination(text: str) -> Destination:
    """Read a destination; raises UsageError if it is none.

    A path that looks like a port is refused. A bare IPv6 address is taken whole when
    it has two colons or more, as a host and a path never do; with a path it needs
    brackets.
    """
    text = text.strip()
    if text.startswith("ssh://"):
        return _parse_url(text)
    user, at, rest = text.rpartition("@")
    if rest.startswith("["):
        host, bracket, tail = rest[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise _bad(text)
        path = tail[1:]
    elif rest.count(":") > 1 and "/" not in rest:
        host, path = rest, ""
    else:
        host, _, path = rest.partition(":")
    found = _checked(text, user if at else DEFAULT_USER, host, None, path)
    if _LIKE_A_PORT.fullmatch(path):
        url = f"ssh://{found.user}@{found.rsync_host}:{path}/"
        raise UsageError(
            f"{quote(text)}: is {path} a port? As it stands it is a path",
            hint=f"for the port write {url}",
        )
    return found


def format_destination(destination: Destination) -> str:
    """The text that parse_destination reads back as the same value."""
    user, host, path = destination.user, destination.rsync_host, destination.path
    if destination.port is not None:
        return f"ssh://{user}@{host}:{destination.port}/{path}"
    if _LIKE_A_PORT.fullmatch(path):
        return f"ssh://{user}@{host}/{path}"
    return f"{user}@{host}:{path}"


def _parse_url(text: str) -> Destination:
    authority, _, path = text.removeprefix("ssh://").partition("/")
    user, at, rest = authority.rpartition("@")
    if rest.startswith("["):
        host, _, tail = rest[1:].partition("]")
        port_text = tail.removeprefix(":")
    else:
        host, _, port_text = rest.partition(":")
    port = None
    if port_text:
        if not (port_text.isascii() and port_text.isdigit()):
            raise _bad(text)
        port = int(port_text)
        if not 0 < port < 65536:
            raise _bad(text)
    return _checked(text, user if at else DEFAULT_USER, host, port, path)


def _checked(
    text: str, user: str, host: str, port: int | None, path: str
) -> Destination:
    # Both words end up in ssh's argv: nothing there may look like an option, and
    # nothing may be blank or unprintable.
    for word in (user, host):
        if not word or word.startswith("-") or not word.isprintable() or " " in word:
            raise _bad(text)
    if set("/[]") & set(host) or not path.isprintable():
        raise _bad(text)
    return Destination(user, host, port, path)


def _bad(text: str) -> UsageError:
    return UsageError(f"{quote(text)} is no destination", hint=f"write it as {EXAMPLE}")
