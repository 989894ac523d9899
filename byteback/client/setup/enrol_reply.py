"""Reads the replies of byteback-setup-client-receive, old and new ones."""

from __future__ import annotations

import re
from dataclasses import dataclass

from byteback.errors import (
    BusyError,
    BytebackError,
    LockedError,
    NotSetUpError,
    RefusedError,
    ToolError,
    UnreachableError,
    UsageError,
)
from byteback.model.public_key import PublicKey
from byteback.system.process import last_lines
from byteback.system.ssh import openssh
from byteback.system.ssh.session import RemoteResult
from byteback.wire import failures
from byteback.wire.failures import Reason

PROGRAM = "byteback-setup-client-receive"
REPLACE_KEY = "--replace-key"
_DONE = re.compile(r"byteback (\S+): ([a-z]+) (\S+) with key (\S+)")
_SENDABLE = re.compile(r"[^A-Za-z0-9@._+=:,/ -]")
_NOT_FOUND = 127  # what a shell says of a command that it does not find
_ERRORS = {
    kind.exit_status: kind
    for kind in (
        *(RefusedError, NotSetUpError, LockedError, ToolError, UsageError, BusyError),
    )
}


class NameTakenError(RefusedError):
    """The server knows the machine's name by another key."""


class ForcedCommandError(RefusedError):
    """We logged in with a key that may do something else only: a client's key."""


@dataclass(frozen=True)
class Reply:
    """The server's answer; no version means a server too old to say."""

    result: str
    version: str | None


def format_request(host: str, key: PublicKey, *, replace_key: bool) -> str:
    """The remote command, all of whose words mean themselves to any shell.

    An administrator's forced key reads it without a shell, so that quotes would not
    be undone. Options come only to servers that have asked for them: the old tool
    would take one for the host's name, and make a directory for it.
    """
    options = [REPLACE_KEY] if replace_key else []
    plain = PublicKey(key.kind, key.blob, _SENDABLE.sub("", key.comment))
    return " ".join([PROGRAM, *options, host, plain.line])


def parse_reply(result: RemoteResult, server: str) -> Reply:
    """Read what was done. Raises a BytebackError in the server's words if nothing was.

    NameTakenError and ForcedCommandError are the refusals that a caller can handle.
    """
    if result.status == 0:
        for line in result.stdout.splitlines():
            match = _DONE.fullmatch(line.strip())
            if match is not None:
                return Reply(match[2], match[1])
        return Reply("enrolled", None)
    raise _failure(result, server)


def _failure(result: RemoteResult, server: str) -> BytebackError:
    details = last_lines(result.stderr.encode())
    if result.status == _NOT_FOUND:
        return NotSetUpError(
            f"byteback is not installed on {server}, or is not on the PATH there",
            hint="install the package byteback-server and run byteback-setup-server",
            details=details,
        )
    message, hint = _own_words(result.stderr)
    if message is None:
        if "byteback-receive" in result.stderr:
            return ForcedCommandError(
                f"{server} took a key that can only send backups, not enrol clients",
                hint="take that client's key out of your ssh agent and ~/.ssh, or log "
                "in as another user (--login)",
                details=details,
            )
        if result.status == openssh.STATUS_NO_LOGIN:
            return UnreachableError(
                f"{server} lets no user in",
                hint="it is being shut down or looked after: /etc/nologin is there",
                details=details,
            )
        return ToolError(
            f"{PROGRAM} on {server} failed with status {result.status}",
            hint="log in there by hand to see why; byteback-setup-server gives the "
            "user byteback a shell that works",
            details=details or last_lines(result.stdout.encode()),
            status=result.status,
        )
    if failures.parse_reason(result.stderr.splitlines()) == Reason.NAME_TAKEN:
        return NameTakenError(f"{server}: {message}", hint)
    kind = _ERRORS.get(result.status, BytebackError)
    return kind(f"{server}: {message}", hint, details if hint is None else ())


def _own_words(stderr: str) -> tuple[str | None, str | None]:
    message, hint = None, None
    for raw in stderr.splitlines():
        line = "".join(c if c.isprintable() else "?" for c in raw)
        if line.startswith(f"{PROGRAM}: error: "):
            message = line.partition(": error: ")[2]
        elif message is not None and line.strip().startswith("hint: "):
            hint = line.strip().removeprefix("hint: ")
    return message, hint
