"""Sends names once more that one transfer could not bring as they are."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

from byteback.client.backup import many_links, push
from byteback.client.backup.rules import Selection
from byteback.client.backup.sending import send
from byteback.client.record.keeper import Round
from byteback.client.transport.connection import Connection
from byteback.client.transport.retry import RetryPolicy
from byteback.errors import RefusedError
from byteback.system import files
from byteback.system.rsync.command import Outcome
from byteback.wire import requests
from byteback.wire.failures import Reason

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Again:
    """Further transfers of a backup whose main one is done."""

    connection: Connection
    selection: Selection
    io_timeout_s: int
    retry: RetryPolicy
    round_: Round

    def complete_links(self, outcome: Outcome) -> Outcome:
        """Bring the names that the server could not link (see many_links)."""
        if self.round_.partial is not None:
            return outcome  # it met none, and says nothing of all the others
        many_links.remember(outcome)
        return many_links.complete(
            outcome,
            self.selection.sources,
            self.selection.foreign,
            lambda names: self._send(names, with_new=True),
        )

    def send_acls(self, names: Sequence[str]) -> None:
        """Bring the ACLs that the server's rsync has lost (see lost_acls)."""
        if names:
            logger.debug("sending the ACLs of %d files once more", len(names))
            self._send(names)

    def _send(self, names: Sequence[str], *, with_new: bool = False) -> Outcome:
        with files.in_memory() as file:
            for name in names:
                # rsync takes a line that starts with "#" or ";" for a comment.
                file.write(b"./" + os.fsencode(name.removeprefix("./")) + b"\0")
            file.flush()
            stdin = file.fileno()

            def attempt(number: str | None, base: str | None) -> Outcome:
                argv = push.again_argv(
                    *(self.connection, self.selection, self.io_timeout_s, "-"),
                    with_new=with_new,
                    number=number,
                    base=base,
                )
                hidden = self.selection.hidden
                return send(
                    argv, self.connection, self.retry, stdin=stdin, hidden=hidden
                )

            number = self.round_.number and requests.new_push()
            try:
                outcome = attempt(number, self.round_.number)
                self.round_.number = number
            except RefusedError as error:
                if error.reason != Reason.STALE_TREE:
                    raise
                # An attempt that was cut off has changed it, or another machine has.
                self.round_.number = None
                outcome = attempt(None, None)
            return outcome
