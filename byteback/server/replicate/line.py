"""The line from a second server to the first one: ssh, by the store's user.

What comes from there is hostile: it is bounded, and nothing of it is printed unescaped.
"""

from __future__ import annotations

import contextlib
import os
import select
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from byteback.errors import (
    BusyError,
    BytebackError,
    LockedError,
    PolicyError,
    RefusedError,
    UnreachableError,
    quote,
)
from byteback.model.destination import format_destination
from byteback.server.replicate.sources import Source
from byteback.system import process
from byteback.system.ssh import openssh
from byteback.wire import failures, replication

LISTING_S = 600.0
CHUNK = 1 << 16
MAX_SAID = 1 << 15  # bytes kept of what the other side says
END_S = 10.0  # for ssh to end after its transfer, and for what was said to arrive
DETAILS = 5
MAX_SHOWN = 300  # characters of a line that the other side says
_KINDS: dict[int, type[BytebackError]] = {
    BusyError.exit_status: BusyError,
    LockedError.exit_status: BusyError,
    PolicyError.exit_status: PolicyError,
}


@dataclass
class Said:
    """The last words of rsync, ssh and the other side, and the end of ssh."""

    text: bytes = b""
    status: int | None = None

    @property
    def lines(self) -> tuple[str, ...]:
        """The last few lines; what prints them escapes them."""
        text = self.text.decode("utf-8", "surrogateescape")
        return tuple([x for x in text.splitlines() if x.strip()][-20:])

    def take(self, chunk: bytes) -> None:
        """Keep the end of it all."""
        self.text = (self.text + chunk)[-MAX_SAID:]


@dataclass(frozen=True)
class Fetching:
    """A session in which the other side's rsync sends; ours reads and writes here."""

    fds: tuple[int, int]  # from the other side, and to it
    output: int  # for all that our rsync prints
    said: Said = field(default_factory=Said)


@dataclass(frozen=True)
class Line:
    """The way to one first server. The first session really connects."""

    source: Source
    control_path: Path | None

    @property
    def name(self) -> str:
        """The first server as messages name it."""
        return quote(format_destination(self.source.destination))

    def read_listing(self) -> replication.Listing:
        """All that the first server has.

        Raises UnreachableError, RefusedError, or another error that it tells.
        """
        return replication.parse_listing(self.ask(replication.ListAll()))

    def ask(self, request: replication.Request) -> bytes:
        """The first server's answer to a request that brings no files.

        Raises UnreachableError, RefusedError, or another error that it tells.
        """
        said = Said()
        text = self._read(replication.format_request(request), said)
        if said.status != 0:
            raise self.failure(said) or RefusedError(
                f"{self.name} did not serve this server", details=said.lines[-DETAILS:]
            )
        return text

    def _read(self, command: str, said: Said) -> bytes:
        """Standard output of a session, bounded in bytes and in time."""
        running = process.start(
            self._argv(command), in_child=process.dying_with_parent()
        )
        assert running.stdout is not None  # noqa: S101 # for the type checker
        assert running.stderr is not None  # noqa: S101
        out, err = running.stdout.fileno(), running.stderr.fileno()
        deadline = time.monotonic() + LISTING_S
        chunks, length, are_open = [], 0, {out, err}
        try:
            while are_open:
                left = deadline - time.monotonic()
                ready = select.select(list(are_open), [], [], max(0.0, left))[0]
                if not ready or left <= 0:
                    raise UnreachableError(f"{self.name} did not answer in time")
                for fd in ready:
                    chunk = os.read(fd, CHUNK)
                    length += len(chunk)  # also of an endless complaint
                    if not chunk:
                        are_open.discard(fd)
                    elif fd == err:
                        said.take(chunk)
                    else:
                        chunks.append(chunk)
                if length > replication.MAX_LISTING:
                    raise RefusedError(f"the list that {self.name} sends is too long")
            said.status = running.wait(END_S)
        except process.TimeoutExpired:
            raise UnreachableError(f"{self.name} does not end its answer") from None
        finally:
            process.stop(running)
            running.stdout.close()
            running.stderr.close()
        return b"".join(chunks)

    @contextlib.contextmanager
    def fetching(self, request: replication.Fetch) -> Iterator[Fetching]:
        """A session for one transfer. At its end ``said`` has all that was said."""
        with contextlib.ExitStack() as stack:
            from_there, by_ssh = _pipe(stack)
            to_ssh, to_there = _pipe(stack)
            reader, output = _pipe(stack)
            running = process.start(
                self._argv(replication.format_request(request)),
                stdin=to_ssh,
                stdout=by_ssh,
                stderr=output,
                in_child=process.dying_with_parent(),
            )
            fetching = Fetching((from_there, to_there), output)
            thread = threading.Thread(
                target=_listen, args=(reader, fetching.said), daemon=True
            )
            thread.start()
            try:
                os.close(to_ssh)
                os.close(by_ssh)
                yield fetching
            finally:
                os.close(from_there)
                os.close(to_there)
                with contextlib.suppress(process.TimeoutExpired):
                    fetching.said.status = running.wait(END_S)
                process.stop(running)
                os.close(output)
                thread.join(END_S)
                if not thread.is_alive():
                    os.close(reader)
                stack.pop_all()

    def failure(self, said: Said) -> BytebackError | None:
        """The error that the other side or ssh tells; None: neither says anything.

        What the first server says is shown as its own words, and never as a hint.
        """
        lines = said.lines
        if any(map(failures.is_failure, lines)):
            told = [text[:MAX_SHOWN] for text in failures.parse_failure(lines)]
            status = failures.parse_status(lines)
            kind = _KINDS.get(status or 0, RefusedError)
            return kind(f"{self.name}: {told[0]}", details=told[1:DETAILS])
        if said.status in (openssh.STATUS_FAILED, None) or (said.status or 0) < 0:
            details = lines[-DETAILS:]
            return UnreachableError(f"{self.name} cannot be reached", details=details)
        return None

    def _argv(self, command: str) -> list[str]:
        words = openssh.ssh_argv(
            self.source.destination,
            self.source.key,
            known_hosts=self.source.known_hosts,
            control_path=self.control_path,
        )
        return [*words, "--", self.source.destination.host, command]


@contextlib.contextmanager
def connected(source: Source) -> Iterator[Line]:
    """A Line for the length of the block, whose sessions share one connection."""
    with tempfile.TemporaryDirectory(prefix="byteback-") as directory:
        control_path = Path(directory, "ssh")
        try:
            yield Line(source, control_path)
        finally:
            if control_path.exists():
                process.run(
                    openssh.control_argv(control_path, "exit"),
                    tolerate=range(-64, 256),
                    timeout_s=END_S,
                )


def _pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        stack.callback(os.close, end)
    return ends


def _listen(reader: int, said: Said) -> None:
    while chunk := os.read(reader, CHUNK):
        said.take(chunk)
