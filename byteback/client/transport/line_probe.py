"""A ping that also measures how much the line carries."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import time
from dataclasses import dataclass
from typing import IO

from byteback.client.transport.connection import (
    REQUEST_TIMEOUT_S,
    SIGNALLED,
    Connection,
)
from byteback.errors import RefusedError, UnreachableError
from byteback.system import files, process, signals
from byteback.wire import replies, requests
from byteback.wire.probe import (
    ACKNOWLEDGEMENT,
    BLOCK,
    BLOCKS,
    FIRST_BLOCKS,
    TRIES,
)

logger = logging.getLogger(__name__)

LONGEST_S = 3.0  # a line that has not carried the blocks by then is slow enough
SHORT_S = 0.02  # between the first two: a slower line shows its rate by these alone
END_S = 2.0  # for the server to end the session
MAX_ANSWER = 64 * 1024  # bytes
# A busy machine makes a line look slower than it is, and hardly anything makes it look
# faster. So a rate below what is fast, but by no more than this, is measured again.
DOUBT = 4.0


def ping(connection: Connection, fast: float) -> tuple[replies.Hello, float | None]:
    """Ping, and tell how many bytes a second go up to the server.

    That is exact only around ``fast``. On long lines it is too low, for TCP starts
    slowly. None is for a server that cannot be asked, or a measurement that failed.
    Raises as Connection.ping.
    """
    with files.in_memory() as said, signals.block_signals():
        running = process.start(
            connection.command(requests.Ping(json=True, probe=True)),
            stdin=process.PIPE,
            stderr=said.fileno(),
            in_child=process.dying_with_parent(),
        )
        assert running.stdin is not None  # noqa: S101 # for the type checker
        assert running.stdout is not None  # noqa: S101 # the same
        try:
            with signals.allow_signals():
                hello = _read_hello(running.stdout, connection)
                rate = _measure(running, fast) if hello is not None else None
                running.stdin.close()
                with contextlib.suppress(process.TimeoutExpired):
                    running.wait(END_S)
        finally:
            process.stop(running)
            for stream in (running.stdin, running.stdout):
                with contextlib.suppress(OSError):
                    stream.close()
        if hello is not None:
            return hello, rate
        said.seek(0)
        details = process.last_lines(said.read(MAX_ANSWER))
    error = connection.failure(running.returncode, details)
    if isinstance(error, RefusedError) and 0 <= running.returncode <= SIGNALLED:
        # Perhaps it only does not know the word --probe.
        return connection.ping(), None
    raise error


def _read_hello(stream: IO[bytes], connection: Connection) -> replies.Hello | None:
    """The Hello, or None if the answer ends without one."""
    waiting = select.poll()
    waiting.register(stream, select.POLLIN)
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    earlier: list[str] = []
    rest, size = b"", 0
    while size < MAX_ANSWER:
        if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise UnreachableError(f"{connection.name} did not answer in time")
        some = os.read(stream.fileno(), MAX_ANSWER)
        if not some:
            return None
        size += len(some)
        *lines, rest = (rest + some).split(b"\n")
        for raw in lines:
            line = raw.decode("utf-8", "replace")
            try:
                hello = replies.parse_hello(line)
            except replies.ForeignTextError:
                raise
            except RefusedError:
                earlier.append(line)
            else:
                replies.check_is_alone(earlier)
                return hello
    return replies.parse_hello("")  # which is none, and raises what that means


def _measure(running: process.Process, fast: float) -> float | None:
    """Bytes a second, or None if the server does not do its part."""
    assert running.stdin is not None  # noqa: S101 # for the type checker
    assert running.stdout is not None  # noqa: S101 # the same
    os.set_blocking(running.stdin.fileno(), False)
    line = _Line(running.stdin.fileno(), running.stdout.fileno())
    try:
        rate = line.rate_of(FIRST_BLOCKS)
        if rate < BLOCK / SHORT_S:
            return rate
        rate = 0.0
        for _ in range(TRIES):
            rate = max(rate, line.rate_of(BLOCKS))
            if not fast / DOUBT < rate < fast:
                break
    except TimeoutError:
        return line.acknowledged * BLOCK / LONGEST_S
    except (OSError, EOFError) as error:
        logger.debug("the line could not be measured: %s", error)
        return None
    return rate


@dataclass
class _Line:
    """Blocks on their way there, and what comes back for them."""

    there: int  # file descriptors
    back: int
    acknowledged: int = 0  # blocks

    def __post_init__(self) -> None:
        self._deadline = time.monotonic() + LONGEST_S

    def rate_of(self, blocks: int) -> float:
        """Bytes a second, from the first block's acknowledgement to the last one's.

        The time of the way there and back is so left out. Nothing in the blocks can be
        compressed on the way. Raises TimeoutError, or EOFError for what is no answer.
        """
        rest = memoryview(os.urandom(blocks * BLOCK))
        waiting = select.poll()
        waiting.register(self.back, select.POLLIN)
        waiting.register(self.there, select.POLLOUT)
        heard, first = 0, 0.0
        while heard < blocks:
            ready = dict(waiting.poll(self._left_s() * 1000))
            if self.back in ready:
                heard += self._take(blocks - heard)
                first = first or time.monotonic()
            if self.there in ready:
                rest = rest[os.write(self.there, rest[:BLOCK]) :]
                if not rest:
                    waiting.unregister(self.there)
        return (blocks - 1) * BLOCK / max(time.monotonic() - first, 1e-6)

    def _take(self, most: int) -> int:
        answer = os.read(self.back, most)
        if not answer or answer.strip(ACKNOWLEDGEMENT):
            raise EOFError("the server does not take part")
        self.acknowledged += len(answer)
        return len(answer)

    def _left_s(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left
