"""Runs a backup's rsync until all is sent, or until trying again does not help."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from byteback.client.backup import many_links, verdict
from byteback.client.backup.push import BLOCK_SIZE
from byteback.client.transport.connection import Connection
from byteback.client.transport.retry import RetryPolicy, retrying
from byteback.errors import BusyError
from byteback.system import mounts
from byteback.system.rsync import command
from byteback.system.rsync.command import Outcome, Progress
from byteback.wire.failures import Reason

logger = logging.getLogger(__name__)

PARTIAL_PAUSE_S = 10.0
TIMES_AT_ONCE = 3  # that the server has one transfer come again without a pause


def send(
    argv: Sequence[str],
    connection: Connection,
    policy: RetryPolicy,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    on_line: Callable[[str], None] | None = None,
    stdin: int | None = None,
    hidden: Sequence[str] = (),
) -> Outcome:
    """Run the transfer until it is done, resuming after each failure that can pass.

    rsync does not see what is mounted at the ``hidden`` paths.
    The outcome is a success, or partial: all is there but what could not be read.
    Raises UnreachableError or BusyError when no attempt is left, RefusedError if the
    server refuses, ToolError for the failures that trying again does not mend.
    """
    transfer = _Transfer(list(argv), connection, on_progress, on_line, stdin, hidden)
    outcome = retrying(transfer.attempt, policy, renew=connection.renew)
    is_partial = outcome.status == command.PARTIAL
    if is_partial and outcome.all_problems and policy.number > 0:
        # Once more: what could not be read may just have been in the way.
        logger.warning("some files could not be read; trying those once more")
        soon = RetryPolicy(policy.number, min(policy.delay_s, PARTIAL_PAUSE_S))
        outcome = retrying(transfer.attempt, soon, renew=connection.renew)
    return outcome


@dataclass
class _Transfer:
    words: list[str]
    connection: Connection
    on_progress: Callable[[Progress], None] | None
    on_line: Callable[[str], None] | None
    stdin: int | None
    hidden: Sequence[str]

    def attempt(self) -> Outcome:
        """One attempt, in as many transfers as the server asks for without a pause."""
        for _ in range(TIMES_AT_ONCE):
            try:
                return self._once()
            except BusyError as error:
                if error.reason != Reason.AT_ONCE:
                    raise
                if "--dry-run" in self.words:  # for which the server changes nothing
                    error.retryable = False
                    raise
                logger.info("%s", error.message)
        return self._once()

    def _once(self) -> Outcome:
        outcome = self._run()
        if outcome.unlinked and outcome.status == command.NOT_LINKED:
            self.words.insert(1, many_links.ALL_AT_ONCE)
            outcome = self._run()
        is_too_large = outcome.status == command.NO_MEMORY
        if is_too_large or outcome.status < 0:
            # The server may have more of a new file than was known, and each of
            # its blocks takes memory here: rsync's own size takes least.
            fewer = [word for word in self.words if not word.startswith(BLOCK_SIZE)]
            is_too_large = is_too_large and fewer != self.words
            self.words = fewer
            outcome = self._run() if is_too_large else outcome
        verdict.check(outcome, self.connection)
        return outcome

    def _run(self) -> Outcome:
        if self.stdin is not None:
            os.lseek(self.stdin, 0, os.SEEK_SET)
        return command.transfer(
            self.words,
            on_progress=self.on_progress,
            on_line=self.on_line,
            stdin=self.stdin,
            confine=mounts.hiding(self.hidden) if self.hidden else None,
        )
