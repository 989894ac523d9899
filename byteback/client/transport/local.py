"""Sessions on the server itself: root reads a client's backups without ssh (D54)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from byteback.client.transport.connection import Connection, Request
from byteback.errors import BytebackError, RefusedError, ToolError, quote
from byteback.model.destination import DEFAULT_USER, Destination
from byteback.system import process
from byteback.wire import failures, requests

MACHINE = "localhost"  # rsync wants a host, and nothing else looks at it
NOT_STARTED = (126, 127)


@dataclass(frozen=True)
class Origin:
    """A client whose backups this very machine keeps."""

    client: str
    receive: Path  # the program that sshd would run
    state: Path  # the server's own directory, which each session writes to


@dataclass(frozen=True)
class LocalConnection(Connection):
    """Starts the forced command in place of ssh.

    It becomes the store's user, and confines and limits itself as for a client.
    """

    origin: Origin = field(kw_only=True)

    @property
    def writable(self) -> list[Path]:
        """The session is a child of the confined rsync, and so as confined as that."""
        return [self.origin.state]

    @property
    def name(self) -> str:
        """The store as messages name it."""
        return f"the store's copy of {quote(self.origin.client)}"

    def command(self, request: Request) -> list[str]:
        """The command line that serves one request."""
        return [*self._shell(), MACHINE, requests.format_request(request)]

    def failure(self, status: int, details: tuple[str, ...]) -> BytebackError:
        """The error for a session that ended with ``status``."""
        said = any(map(failures.is_failure, details))
        if status in NOT_STARTED or (status < 0 and not said):
            how = process.describe_status(status)
            program = quote(str(self.origin.receive))
            return ToolError(f"{program} {how}", details=details, status=status)
        if not said:
            return RefusedError(f"{self.name} refused", details=details)
        return super().failure(status, details)

    def _shell(self) -> list[str]:
        return [str(self.origin.receive), "--host", self.origin.client, "--local"]


def connect_locally(origin: Origin) -> LocalConnection:
    """A connection to the store of this machine."""
    nowhere = Destination(DEFAULT_USER, MACHINE)
    return LocalConnection(nowhere, Path(), None, None, origin=origin)
