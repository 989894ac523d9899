"""A stream of bytes to a server's sshd: straight, or through ssh_config's proxy."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from byteback.errors import UnreachableError, quote
from byteback.system import process
from byteback.system.ssh.config import SshConfig

CONNECT_TIMEOUT_S = 30.0


@contextlib.contextmanager
def open_socket(config: SshConfig) -> Iterator[socket.socket]:
    """A connected socket for the length of the block. Raises UnreachableError."""
    if config.proxy is None:
        with _connect(config) as sock:
            yield sock
        return
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            running = process.start(
                ["sh", "-c", f"exec {config.proxy}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=None,  # its questions and complaints are the user's
            )
        try:
            yield ours
        finally:
            process.stop(running)


def _connect(config: SshConfig) -> socket.socket:
    where = f"{quote(config.host)} port {config.port}"
    try:
        return socket.create_connection((config.host, config.port), CONNECT_TIMEOUT_S)
    except socket.gaierror as error:
        raise UnreachableError(
            f"there is no host {quote(config.host)}: {error.strerror}",
            hint="check the destination's spelling, and this machine's DNS",
        ) from None
    except ConnectionRefusedError:
        raise UnreachableError(
            f"{where} refused the connection",
            hint="is sshd running there, and on that port?",
        ) from None
    except TimeoutError:
        raise UnreachableError(
            f"{where} did not answer within {CONNECT_TIMEOUT_S:g} seconds",
            hint="check the name, the port and the firewalls between",
        ) from None
    except (OSError, UnicodeError) as error:
        raise UnreachableError(
            f"cannot connect to {where}: {getattr(error, 'strerror', None) or error}",
            hint="check the network, the name and the port",
        ) from None
