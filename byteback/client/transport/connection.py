"""One ssh connection to the server, shared by everything that a run sends."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from byteback.client.settings import Files
from byteback.client.transport import control_socket, no_connection
from byteback.client.transport.control_socket import SOCKET
from byteback.errors import (
    BusyError,
    BytebackError,
    LockedError,
    MovedError,
    PolicyError,
    RefusedError,
    StoreUnavailableError,
    ToolError,
    UnreachableError,
    quote,
)
from byteback.model.destination import Destination, format_destination
from byteback.system import process, signals
from byteback.system.rsync.command import Outcome
from byteback.system.ssh import openssh
from byteback.wire import failures, replies, requests

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 300.0
Request = requests.Ping | requests.Claim | requests.Complete | requests.Find
SIGNALLED = 128  # plus a signal: the remote program was ended by one
HIGHEST_SIGNAL = 64
STORE_REASONS = (failures.Reason.STORE_MISSING, failures.Reason.STORE_FAILED)
_SERVER_STATUSES = frozenset(
    kind.exit_status for kind in (ToolError, PolicyError, BusyError)
)


@dataclass(frozen=True)
class Connection:
    """The way to the server. The first request really connects."""

    destination: Destination
    key: Path
    known_hosts: Path | None
    control_path: Path | None
    ciphers: str | None = None  # None: as ssh likes
    machine: str | None = None  # which one this is, for a server that remembers it

    @property
    def files(self) -> Files:
        """This machine's configuration, where the server's key is pinned."""
        return Files() if self.known_hosts is None else Files(self.known_hosts.parent)

    @property
    def writable(self) -> list[Path]:
        """Directories that a session must write to, whatever else its rsync may not."""
        return [] if self.control_path is None else [self.control_path.parent]

    @property
    def remote_shell(self) -> str:
        """The value for rsync's -e."""
        return openssh.join_for_rsync(self._shell())

    @property
    def name(self) -> str:
        """The server as messages name it."""
        return quote(format_destination(self.destination))

    def command(self, request: Request) -> list[str]:
        """The ssh command line that sends one request."""
        words = requests.format_request(request)
        return [*self._shell(), "--", self.destination.host, words]

    def login_command(self) -> list[str]:
        """The ssh command line that makes the shared connection and asks nothing.

        Its -N comes before the option SessionType, and so beats it.
        """
        ssh, *options = self._shell()
        return [ssh, "-N", *options, "--", self.destination.host]

    def request(
        self,
        request: Request,
        *,
        stdin: bytes = b"",
        timeout_s: float | None = REQUEST_TIMEOUT_S,
    ) -> process.Finished:
        """Send one request and return the server's answer.

        Raises UnreachableError if the line failed (worth trying again), RefusedError
        or another BytebackError with the server's own words if the server failed.
        """
        try:
            finished = process.run(
                self.command(request),
                tolerate=range(-64, 256),
                stdin=stdin,
                timeout_s=timeout_s,
                in_child=process.dying_with_parent(),
            )
        except ToolError as error:
            if error.status == 127:
                raise
            raise UnreachableError(
                f"{self.name} did not answer in time",
                hint="it may have too much to do: try again later, or look at it",
                details=error.details,
            ) from None
        if finished.status != 0:
            raise self.failure(finished.status, finished.stderr_tail)
        return finished

    def renew(self) -> None:
        """End the shared connection: the next session makes one of its own.

        After a failure the old one may lead nowhere: its packets are lost on the way,
        say, or the server's end of it has stopped.
        """
        if self.control_path is not None:
            with signals.block_signals():
                control_socket.end_master(self.control_path)

    def ping(self) -> replies.Hello:
        """Prove that the server is there and takes our key.

        Raises as request does; RefusedError too if the server is too old to serve us.
        """
        try:
            finished = self.request(requests.Ping(json=True))
        except RefusedError:
            if self._is_old_server():
                return replies.parse_hello("")
            raise
        return replies.parse_hello(finished.text)

    def _is_old_server(self) -> bool:
        """The Ruby tool's server knows a bare --ping and no --json."""
        with contextlib.suppress(BytebackError):
            self.request(requests.Ping())
            return True
        return False

    def failure(self, status: int, details: tuple[str, ...]) -> BytebackError:
        """The error for an ssh session that ended with ``status``."""
        if status == openssh.STATUS_FAILED or status < 0:
            ended = (f"ssh {process.describe_status(status)}",) if status < 0 else ()
            return no_connection.explain(self, details or ended)
        error = self._failure(status, details)
        error.reason = failures.parse_reason(details)
        if error.reason == failures.Reason.MOVED and isinstance(error, RefusedError):
            moved_to = failures.parse_moved_to(details) or ""
            return MovedError(error.message, error.hint, moved_to)
        return error

    def _failure(self, status: int, details: tuple[str, ...]) -> BytebackError:
        said = failures.parse_failure(details)
        message = f"{self.name}: {said[0]}" if said else f"{self.name} refused"
        hint = failures.parse_hint(said[1:])
        if failures.parse_reason(details) in STORE_REASONS:
            return StoreUnavailableError(message, hint)
        if status in (BusyError.exit_status, LockedError.exit_status):
            return BusyError(message, hint)
        if SIGNALLED < status <= SIGNALLED + HIGHEST_SIGNAL:
            number = status - SIGNALLED
            return UnreachableError(
                f"{self.name} was stopped by signal {number}",
                hint="is that machine being shut down, or short of memory?",
            )
        if status == PolicyError.exit_status:
            return PolicyError(message, hint)
        if status == ToolError.exit_status:
            return ToolError(message, hint, () if hint else said[1:])
        if not any(map(failures.is_failure, details)):
            return no_connection.explain_status(self, status, details)
        return RefusedError(message, hint, () if hint else said[1:])

    def transfer_failure(self, outcome: Outcome) -> BytebackError | None:
        """The error for what the server said while rsync ran; None: it said nothing."""
        for said in (outcome.remote_messages, outcome.stderr_tail):
            if any(map(failures.is_failure, said)):
                status = failures.parse_status(said)
                if status is None:
                    # rsync gives it on if it is greater than its own, and in time.
                    known = outcome.status in _SERVER_STATUSES
                    status = outcome.status if known else RefusedError.exit_status
                return self.failure(status, said)
        return None

    def _shell(self) -> list[str]:
        return openssh.ssh_argv(
            self.destination,
            self.key,
            known_hosts=self.known_hosts,
            control_path=self.control_path,
            ciphers=self.ciphers,
        )


@contextlib.contextmanager
def connect(
    destination: Destination, key: Path, known_hosts: Path | None
) -> Iterator[Connection]:
    """A Connection for the length of the block, shared by all sessions in it.

    ``known_hosts`` is used if the file exists; a client that the Ruby tool set up has
    none, and goes by ssh's own files as before.
    """
    pinned = known_hosts if known_hosts is not None and known_hosts.exists() else None
    with contextlib.ExitStack() as stack:
        directory = control_socket.make_directory(stack)
        try:
            ciphers = openssh.fast_ciphers(destination)
            yield Connection(destination, key, pinned, directory / SOCKET, ciphers)
        finally:
            with signals.block_signals():
                control_socket.remove(directory)
