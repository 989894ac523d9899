"""Introducing this machine to the server over an administrator's login."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from byteback.client.settings import Files
from byteback.client.setup import enrol_reply, host_key, login
from byteback.client.setup.enrol_reply import ForcedCommandError, NameTakenError, Reply
from byteback.client.setup.questions import Questions
from byteback.client.setup.schedule import ScheduleRequest
from byteback.client.transport import identity
from byteback.client.transport.connection import connect
from byteback.errors import BytebackError, RefusedError, quote
from byteback.model.destination import Destination, format_destination
from byteback.model.hostname import is_same_host
from byteback.model.invitation import Word
from byteback.model.public_key import PublicKey
from byteback.system.ssh import config
from byteback.system.ssh.session import Session
from byteback.wire import replies, requests
from byteback.wire.replies import Hello

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """The administrator's decisions beforehand."""

    key: Path
    hostname: str | None = None  # None: this machine's own name
    login: str | None = None  # None: the destination's user
    accept_new_host_key: bool = False
    replace_key: bool = False
    schedule: ScheduleRequest = field(default_factory=ScheduleRequest)
    invitation: Word | None = None  # instead of a login


@dataclass(frozen=True)
class Applicant:
    """This machine, as it wants to be known, and where."""

    files: Files
    destination: Destination
    name: str
    key_path: Path
    key: PublicKey

    @property
    def server(self) -> str:
        """The server as messages name it."""
        return quote(format_destination(self.destination))

    def prove(self) -> Hello:
        """Show by a real ping that the key works and stands for our name.

        Names are compared without regard to case, and the Hello's is the server's own.
        Raises as Connection.ping does; RefusedError if the key does not open the door,
        or opens another client's.
        """
        known_hosts = self.files.known_hosts
        with connect(self.destination, self.key_path, known_hosts) as connection:
            try:
                hello = connection.ping()
            except RefusedError as error:
                raise self._explain(error) from None
        if not is_same_host(hello.host, self.name):
            raise RefusedError(
                f"{self.server} takes this machine's key for that of "
                f"{quote(hello.host)}, not of {quote(self.name)}",
                hint="look for other lines with this key in the server's "
                "authorized_keys",
            )
        return hello

    def claim(self, hello: Hello) -> bool:
        """Say that this machine is the client; whether it was another one until now.

        That is how one that was installed again, or replaced, goes on.
        """
        machine = identity.machine_name() if hello.machines else None
        if machine is None:
            return False
        known_hosts = self.files.known_hosts
        with connect(self.destination, self.key_path, known_hosts) as connection:
            answer = connection.request(requests.Claim(machine))
        return replies.parse_claimed(answer.text).was_other

    def _explain(self, error: RefusedError) -> RefusedError:
        if not any("Permission denied" in line for line in error.details):
            return error
        return RefusedError(
            f"{self.server} does not let this machine's own key alone in",
            hint="the server's sshd log says why: wrong owners or modes above "
            "authorized_keys, or what its sshd_config does not allow; or ssh_config "
            "here does not allow the key's type",
            details=error.details,
        )


class Introduction:
    """The conversation with the server before the machine's own key works."""

    def __init__(
        self, applicant: Applicant, options: Options, questions: Questions
    ) -> None:
        self._applicant = applicant
        self._options = options
        self._questions = questions
        user = options.login or applicant.destination.user
        self._config = config.resolve(applicant.destination, user)
        self._known = host_key.find_known_keys(
            self._config, applicant.destination, applicant.files
        )
        self._accepted: PublicKey | None = None
        self._proof: Hello | BytebackError | None = None

    @property
    def server_fingerprint(self) -> str:
        """The fingerprint of the server's key, once it was accepted."""
        return "" if self._accepted is None else self._accepted.fingerprint

    def make(self) -> Reply:
        """Log in, and have the server bind our key to our name.

        Where no login works, yet the server knows us already, there is nothing
        to do. Raises RefusedError, UnreachableError or another BytebackError.
        """
        ignored = {self._applicant.key.blob}
        forced: ForcedCommandError | None = None
        while True:
            try:
                with login.logged_in(
                    self._config,
                    self._known.key_types,
                    self._check_server,
                    self._questions,
                    frozenset(ignored),
                    self._needs_login,
                ) as session:
                    try:
                        return self._ask(session)
                    except ForcedCommandError as error:
                        if session.key_used is None:
                            raise
                        logger.info("%s; trying another", error.message)
                        forced = error
                        ignored.add(session.key_used.blob)
            except login.LoginRefusedError as error:
                return self._settle_without_login(forced or error)

    def _ask(self, session: Session) -> Reply:
        try:
            reply = self._send(session, replace_key=False)
        except NameTakenError as taken:
            if not (self._options.replace_key or self._may_replace(taken)):
                raise
            return self._send(session, replace_key=True)
        if reply.version is None:
            logger.warning("%s runs an older byteback", self._applicant.server)
        elif self._options.replace_key and reply.result != "enrolled":
            # Our key was there already; another one that opens the same history goes.
            return self._send(session, replace_key=True)
        return reply

    def _send(self, session: Session, *, replace_key: bool) -> Reply:
        request = enrol_reply.format_request(
            self._applicant.name, self._applicant.key, replace_key=replace_key
        )
        return enrol_reply.parse_reply(session.run(request), self._applicant.server)

    def _may_replace(self, taken: NameTakenError) -> bool:
        return self._questions.can_confirm() and self._questions.confirm(
            f"{taken.message}.\nIf this is the same machine with a new key, the new "
            "key can take over its name and all its backups.\nReplace the old key?"
        )

    def _check_server(self, key: PublicKey) -> None:
        if self._accepted is not None:
            if self._accepted.blob != key.blob:
                raise BytebackError(
                    f"{self._applicant.server} showed another host key the second time",
                    hint="another machine may answer in its place: find that out first",
                )
            return
        host_key.check_host_key(
            key,
            self._known,
            self._config,
            self._questions,
            accept_new=self._options.accept_new_host_key,
        )
        self._accepted = key
        host_key.pin(self._applicant.files, self._applicant.destination, key)

    def _needs_login(self) -> bool:
        """True if the machine's own key, by itself, leaves something to be done."""
        if self._options.replace_key:
            return True
        proof = self._prove_once()
        return isinstance(proof, BytebackError) or proof.is_old_line

    def _prove_once(self) -> Hello | BytebackError:
        if self._proof is None:
            try:
                self._proof = self._applicant.prove()
            except BytebackError as error:
                logger.debug("the machine's own key does not work: %s", error.message)
                self._proof = error
        return self._proof

    def _settle_without_login(self, error: RefusedError) -> Reply:
        if self._options.replace_key:
            raise error
        proof = self._prove_once()
        if isinstance(proof, BytebackError):
            raise error
        if proof.is_old_line:
            logger.warning(
                "%s; this machine's line there is still the old tool's", error.message
            )
        else:
            logger.info("no login is needed: the server takes this machine's own key")
        return Reply("already", proof.byteback)
