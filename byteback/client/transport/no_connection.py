"""The error for a server that byteback-receive does not answer from, and what to do.

Either ssh did not get there, or the server's sshd or login shell ended the session.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from byteback.client.settings import setup_command
from byteback.errors import (
    BytebackError,
    NotSetUpError,
    RefusedError,
    ToolError,
    UnreachableError,
    UsageError,
    quote,
)
from byteback.system import process
from byteback.system.ssh import openssh
from byteback.wire import requests

if TYPE_CHECKING:
    from byteback.client.transport.connection import Connection

REASON_TIMEOUT_S = 90.0  # more than ssh gives itself to connect

NOT_EXECUTABLE, NOT_FOUND = 126, 127  # a shell's

# What byteback-receive prints where a shell runs it, with our request's words.
_USAGE = "Usage: byteback-receive "
_BAD_CONFIG = re.compile(r"(?i:bad configuration option|bad owner or permissions on)")
# ssh's own sentences, and sshd's where it says why it hangs up.
_HINTS = (
    (
        "Could not resolve hostname",
        "check the spelling of the server's name, and this machine's DNS",
    ),
    (
        "Connection refused",
        "is sshd running there, and on that port? ssh://USER@HOST:PORT/ names another",
    ),
    (
        "Connection timed out|No route to host|unreachable|timed out",
        "check the network, the name, the port and the firewalls between",
    ),
    (
        "Unable to negotiate|no matching",
        "ssh_config here and sshd_config there must allow one in common",
    ),
    (
        "account has expired",
        "on the server: chage --expiredate -1 USER",
    ),
    (
        "kex_exchange_identification|banner exchange",
        "is that an sshd, not too busy, and does a jump host or proxy get through?",
    ),
    (
        "Connection closed by|Connection reset by",
        "sshd's log there says why: it was busy, shutting down, or kept USER out",
    ),
)


def explain(connection: Connection, details: tuple[str, ...]) -> BytebackError:
    """The error for an ssh that ended with its own status, and printed ``details``.

    Where ssh printed nothing it is asked once more, with its own reasons shown.
    """
    if not details:
        details = _ask_for_reason(connection)
    text = "\n".join(details)
    if _BAD_CONFIG.search(text):
        return UsageError(
            "ssh cannot use its configuration",
            hint="correct the line that it names",
            details=details,
        )
    return (
        _host_key_failure(connection, text)
        or _key_failure(connection, text, details)
        or UnreachableError(
            f"cannot reach {connection.name}",
            hint=_hint(connection, text),
            details=details,
        )
    )


def explain_status(
    connection: Connection, status: int, details: tuple[str, ...]
) -> BytebackError:
    """The error for a session that ended without a word from byteback-receive."""
    name = connection.name
    if status == openssh.STATUS_NO_LOGIN:
        return UnreachableError(
            f"{name} lets no user in",
            hint="it is being shut down or looked after: /etc/nologin is there",
            details=details,
        )
    if any(line.startswith(_USAGE) for line in details):
        return RefusedError(
            f"the key {quote(str(connection.key))} opens a shell on {name}, and is no "
            "client's key",
            hint="leave --ssh-key out, or name a key that byteback-setup-client made",
        )
    if status in (NOT_FOUND, NOT_EXECUTABLE):
        again = setup_command(connection.files, connection.destination)
        return RefusedError(
            f"{name} cannot run byteback-receive",
            hint="install byteback-server there and run byteback-setup-server; if its "
            f"programs have moved, run here: {again}",
            details=details,
        )
    return RefusedError(
        f"{name} ended the session with status {status}, and byteback-receive there "
        "said nothing",
        hint="run byteback-setup-server there: it gives its user a shell that works; "
        "if that changes nothing, look into that user's .bashrc and .profile",
        details=details,
    )


def forget_host_key_command(connection: Connection) -> str:
    """The command that takes the server's pinned key away."""
    name = openssh.pinned_name(connection.destination)
    return shlex.join(["ssh-keygen", "-R", name, "-f", str(connection.known_hosts)])


def _host_key_failure(connection: Connection, text: str) -> RefusedError | None:
    is_changed = "IDENTIFICATION HAS CHANGED" in text
    is_refused = "Host key verification failed" in text
    # Where nothing is pinned, ssh says only that it may not ask.
    is_unknown = is_refused and connection.known_hosts is None and not is_changed
    set_up = setup_command(connection.files, connection.destination)
    if is_unknown or "host key is known for" in text:
        return RefusedError(
            f"the host key of {connection.name} is not known: "
            f"{quote(str(connection.known_hosts or 'known_hosts'))} does not hold it",
            hint=f"pin it: {set_up}",
        )
    if is_refused or is_changed:
        forget = (
            f"{forget_host_key_command(connection)} && "
            if connection.known_hosts is not None
            else ""
        )
        return RefusedError(
            f"the host key of {connection.name} is not the one that was pinned at "
            "set-up: another machine may have taken the server's place",
            hint="find out whether the server was reinstalled; only then: "
            f"{forget}{set_up}",
        )
    return None


def _key_failure(
    connection: Connection, text: str, details: tuple[str, ...]
) -> BytebackError | None:
    key = connection.key
    if f'Load key "{key}": bad permissions' in text:
        return NotSetUpError(
            f"the key {quote(str(key))} can be read by others, and so ssh "
            "does not use it",
            hint=f"chmod 600 {key}",
        )
    if f'Load key "{key}"' in text:
        again = setup_command(
            connection.files, connection.destination, "--replace-key", key=key
        )
        return NotSetUpError(
            f"the key {quote(str(key))} is damaged: ssh cannot read it",
            hint=f"have a new one made: mv {key} {key}.damaged && {again}",
            details=details,
        )
    if "Permission denied" in text:
        again = setup_command(connection.files, connection.destination, key=key)
        # The keys are in the store: sshd finds none while that is not mounted, after a
        # start of the server for example. So this is worth trying again.
        error = RefusedError(
            f"{connection.name} does not take this machine's key",
            hint="its store, in which the keys are, may not be mounted: "
            "'byteback-prune --list' says so there. Only if it is, enrol this machine: "
            f"{again}; if that changes nothing, sshd's log there says why",
            details=details,
        )
        error.retryable = True
        return error
    return None


def _hint(connection: Connection, text: str) -> str:
    for pattern, hint in _HINTS:
        if re.search(pattern, text):
            return hint.replace("USER", connection.destination.user)
    destination = connection.destination
    port = [] if destination.port is None else ["-p", str(destination.port)]
    words = ["ssh", "-v", *port, "-i", str(connection.key)]
    command = shlex.join([*words, f"{destination.user}@{destination.host}"])
    return f"see what this says: {command}"


def _ask_for_reason(connection: Connection) -> tuple[str, ...]:
    """ssh's words about a connection that fails, with the level that gives a reason."""
    argv = openssh.ssh_argv(
        connection.destination,
        connection.key,
        known_hosts=connection.known_hosts,
        log_level="INFO",
    )
    request = requests.format_request(requests.Ping())
    try:
        finished = process.run(
            [*argv, "--", connection.destination.host, request],
            tolerate=range(-64, 256),
            timeout_s=REASON_TIMEOUT_S,
            in_child=process.dying_with_parent(),
        )
    except ToolError as error:
        return error.details
    is_failed = finished.status == openssh.STATUS_FAILED
    return finished.stderr_tail if is_failed else ()
