"""Introducing this machine to the server by an invitation, without any login."""

from __future__ import annotations

import logging

from byteback.client.setup import enrol_reply, host_key
from byteback.client.setup.enrol_reply import Reply
from byteback.client.setup.introduction import Applicant
from byteback.client.transport.retry import RetryPolicy
from byteback.errors import (
    BusyError,
    BytebackError,
    LockedError,
    RefusedError,
    UnreachableError,
)
from byteback.model.invitation import Word
from byteback.system.ssh import config
from byteback.system.ssh import session as ssh
from byteback.system.ssh.session import Session

logger = logging.getLogger(__name__)

# Hundreds of machines may come at once: sshd turns some away (MaxStartups). All pauses
# together are some six minutes.
POLICY = RetryPolicy(number=10, delay_s=3.0)


class Invited:
    """The conversation with the server that an invitation's word leads to."""

    def __init__(self, applicant: Applicant, word: Word) -> None:
        self._applicant = applicant
        self._word = word
        self._config = config.resolve(applicant.destination, applicant.destination.user)
        self.server_fingerprint = ""

    def make(self) -> Reply:
        """Have the server bind our key to our name.

        An invitation that was used up by an earlier try of ours, whose answer was lost,
        is as good. Raises RefusedError, UnreachableError or another BytebackError.
        """
        with ssh.open_session(self._config, [self._word.host_key_type]) as session:
            self._check_server(session)
            if self._log_in(session):
                request = enrol_reply.format_request(
                    self._applicant.name, self._applicant.key, replace_key=False
                )
                answer = session.run(request)
                try:
                    return enrol_reply.parse_reply(answer, self._applicant.server)
                except LockedError as error:  # by the others who come at once
                    raise BusyError(error.message, error.hint) from None
        try:
            return Reply("already", self._applicant.prove().byteback)
        except RefusedError:
            raise RefusedError(
                f"{self._applicant.server} does not take this invitation",
                hint="it serves one machine, and for a time; the server's "
                "administrator can make another one: 'byteback-clients invite'",
            ) from None

    def _check_server(self, session: Session) -> None:
        """Before anything is offered: it has to be the server that invites."""
        key = session.server_key
        if not self._word.is_of(key):
            raise BytebackError(
                f"{self._applicant.server} is not the server that made this "
                f"invitation: its {key.kind} key is {key.fingerprint}",
                hint="look at --destination; if it is right, another machine answers "
                "in the server's place",
            )
        self.server_fingerprint = key.fingerprint
        host_key.pin(self._applicant.files, self._applicant.destination, key)

    def _log_in(self, session: Session) -> bool:
        session.login_without()
        key = ssh.read_key(self._word.private_key, "the invitation")
        if session.login_with_key(key):
            return True
        if not session.is_open:
            raise UnreachableError(f"{self._applicant.server} hung up")
        return False
