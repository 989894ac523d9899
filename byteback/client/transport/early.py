"""Makes the shared connection while this machine is at work on something else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from byteback.client.transport.connection import Connection
from byteback.system import process, signals
from byteback.system.ssh import openssh

MOST_S = openssh.CONNECT_TIMEOUT_S + 10.0  # for a server that does not answer


@dataclass
class Early:
    """A connection on its way."""

    is_made: bool = False  # known after the block


@contextlib.contextmanager
def connecting(connection: Connection) -> Iterator[Early]:
    """Have ssh log in beside the block, and wait for that at its end.

    A failure is no error: the next session makes a connection of its own, and tells
    what is wrong. With ControlPersist ssh goes to the background when it has logged in,
    and ends by itself if no session comes (ssh_config(5)).
    """
    early = Early()
    with signals.block_signals():
        running = process.start(
            connection.login_command(),
            stdout=process.NULL,
            stderr=process.NULL,
            in_child=process.dying_with_parent(),
        )
        try:
            with signals.allow_signals():
                yield early
                with contextlib.suppress(process.TimeoutExpired):
                    early.is_made = running.wait(MOST_S) == 0
        finally:
            process.stop(running)
