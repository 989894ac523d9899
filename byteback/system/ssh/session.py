"""An ssh session with an administrator's means: agent, keys, passwords.

For set-up only, where a person may be asked things; unattended runs use OpenSSH. This
is the one home of paramiko.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from byteback.errors import BytebackError, UnreachableError, quote
from byteback.model.public_key import PublicKey
from byteback.system import process
from byteback.system.ssh import socket
from byteback.system.ssh.config import SshConfig
from byteback.system.ssh.socket import CONNECT_TIMEOUT_S

if TYPE_CHECKING:
    import paramiko

logger = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 300.0  # a busy disc can take a while over a new subvolume
MAX_OUTPUT = 65536  # bytes of each of the remote program's streams
# What one host key type is called when algorithms are agreed on (RFC 8332).
_RSA = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")


class PassphraseNeededError(BytebackError):
    """A private key is protected, and the passphrase is missing or wrong."""


@dataclass(frozen=True)
class LoginKey:
    """A key to log in with, from the agent or a file."""

    label: str  # for messages
    blob: bytes
    secret: paramiko.PKey


@dataclass(frozen=True)
class RemoteResult:
    """The end of a remote command, and its output."""

    status: int
    stdout: str
    stderr: str


class Session:
    """One connection. Made by open_session, which also closes it.

    ``further`` are the methods that the server wants besides what it has taken,
    ``key_used`` is the key that it let us in with, and ``parting_words`` is what it
    said when it hung up over an attempt to log in.
    """

    def __init__(self, transport: paramiko.Transport, config: SshConfig) -> None:
        self._transport = transport
        self._config = config
        self.further: frozenset[str] = frozenset()
        self.key_used: LoginKey | None = None
        self.parting_words: tuple[str, ...] = ()

    @property
    def server_key(self) -> PublicKey:
        """The host key that the server has just proved to hold."""
        key = self._transport.get_remote_server_key()
        return PublicKey(key.get_name(), key.asbytes())

    @property
    def is_open(self) -> bool:
        """False once the server has hung up, as it does after too many attempts."""
        return self._transport.is_active()

    def login_without(self) -> frozenset[str]:
        """Ask to be let in for nothing; returns the methods that the server takes.

        An empty set means that it did let us in.
        """
        module = _paramiko()
        try:
            return frozenset(self._transport.auth_none(self._config.user))
        except module.BadAuthenticationType as error:
            return frozenset(error.allowed_types)
        except (module.SSHException, EOFError, OSError) as error:
            raise self._lost(error) from None

    def login_with_key(self, key: LoginKey) -> bool:
        """Try one key; True if we are in."""
        user = self._config.user
        is_in = self._try(lambda: self._transport.auth_publickey(user, key.secret))
        if is_in:
            self.key_used = key
        return is_in

    def login_with_password(self, password: str) -> bool:
        """Try a password as such; True if we are in."""
        user = self._config.user
        return self._try(
            lambda: self._transport.auth_password(user, password, fallback=False)
        )

    def login_by_answers(self, answer: Callable[[str], str]) -> bool:
        """Let the server ask its questions; True if it likes the answers."""

        def handler(
            title: str, instructions: str, prompts: Sequence[tuple[str, bool]]
        ) -> list[str]:
            logger.debug("the server asks: %s %s", quote(title), quote(instructions))
            return [answer(prompt) for prompt, _is_shown in prompts]

        return self._try(
            lambda: self._transport.auth_interactive(self._config.user, handler)
        )

    def run(self, command: str) -> RemoteResult:
        """Run a command at the far end and wait for it.

        Raises UnreachableError if the connection is lost meanwhile.
        """
        logger.debug("running on %s: %s", self._config.host, command)
        try:
            channel = self._transport.open_session(timeout=CONNECT_TIMEOUT_S)
            with channel:
                channel.settimeout(ANSWER_TIMEOUT_S)
                channel.exec_command(command)
                channel.shutdown_write()
                stdout = channel.makefile("rb").read(MAX_OUTPUT)
                stderr = channel.makefile_stderr("rb").read(MAX_OUTPUT)
                if not channel.status_event.wait(ANSWER_TIMEOUT_S):
                    raise TimeoutError("no answer")
                status = channel.recv_exit_status()
        except (_paramiko().SSHException, EOFError, OSError) as error:
            raise self._lost(error) from None
        return RemoteResult(status, _text(stdout), _text(stderr))

    def _try(self, attempt: Callable[[], list[str]]) -> bool:
        module = _paramiko()
        try:
            self.further = frozenset(attempt())
        except (module.SSHException, EOFError, OSError, ValueError) as error:
            logger.debug("login attempt: %s", error)
            self._note_parting_words()
            return False
        return bool(self._transport.is_authenticated())

    def _note_parting_words(self) -> None:
        # Each attempt has an auth_handler of its own, so that this is none of the
        # banners that the server shows to every user.
        handler = self._transport.auth_handler
        banner = getattr(handler, "banner", None)
        if banner and not self.is_open:
            self.parting_words = process.last_lines(banner)

    def _lost(self, error: Exception) -> UnreachableError:
        return UnreachableError(
            f"the connection to {quote(self._config.host)} was lost",
            hint="try again",
            details=[str(error)] if str(error) else [],
        )


@contextlib.contextmanager
def open_session(config: SshConfig, key_types: Sequence[str]) -> Iterator[Session]:
    """Connect and agree on keys; there is no login yet, and nothing is trusted.

    The server is asked for a host key of one of ``key_types`` first: those by which
    it is known. Raises UnreachableError.
    """
    module = _paramiko()
    with socket.open_socket(config) as sock:
        try:
            transport = module.Transport(sock)
        except (module.SSHException, OSError) as error:
            raise _no_ssh(config, error) from None
        try:
            _prefer(transport, key_types)
            transport.start_client(timeout=CONNECT_TIMEOUT_S)
            yield Session(transport, config)
        except (module.SSHException, EOFError, ConnectionError, TimeoutError) as error:
            raise _no_ssh(config, error) from None
        finally:
            transport.close()


def agent_keys(config: SshConfig) -> list[LoginKey]:
    """The keys that the ssh agent holds, in its order; none without an agent."""
    if config.agent == "none":
        return []
    path = os.environ.get("SSH_AUTH_SOCK")
    if config.agent and config.agent.startswith(("/", "~")):
        path = os.path.expanduser(config.agent)  # noqa: PTH111 # str either way
    if not path:
        return []
    module = _paramiko()
    before = os.environ.get("SSH_AUTH_SOCK")
    os.environ["SSH_AUTH_SOCK"] = path  # the only way to name it to paramiko
    try:
        keys = module.Agent().get_keys()
    except (module.SSHException, OSError) as error:
        logger.debug("no ssh agent: %s", error)
        return []
    finally:
        if before is None:
            del os.environ["SSH_AUTH_SOCK"]
        else:
            os.environ["SSH_AUTH_SOCK"] = before
    return [
        LoginKey(f"the agent's {key.get_name()} key", key.asbytes(), key)
        for key in keys
    ]


def load_key(path: Path, passphrase: str | None = None) -> LoginKey | None:
    """The private key in a file, or None if paramiko can use no such file.

    Raises PassphraseNeededError if it is protected and ``passphrase`` does not open it.
    """
    module = _paramiko()
    is_locked = False
    for kind in (module.Ed25519Key, module.ECDSAKey, module.RSAKey):
        try:
            key = kind.from_private_key_file(str(path), passphrase)
        except module.PasswordRequiredException:
            is_locked = True
        except OSError:
            return None
        except (module.SSHException, ValueError, IndexError, TypeError) as error:
            logger.debug("%s as %s: %s", path, kind.__name__, error)
            is_locked = is_locked or passphrase is not None
        else:
            return LoginKey(str(path), key.asbytes(), key)
    if is_locked:
        raise PassphraseNeededError(f"{quote(str(path))} needs its passphrase")
    return None


def read_key(text: str, label: str) -> LoginKey:
    """An Ed25519 key from the text of an OpenSSH file without a passphrase."""
    key = _paramiko().Ed25519Key.from_private_key(io.StringIO(text))
    return LoginKey(label, key.asbytes(), key)


def _prefer(transport: paramiko.Transport, key_types: Sequence[str]) -> None:
    options = transport.get_security_options()
    offered = [kind for kind in options.key_types if kind != "ssh-dss"]
    wanted = [x for kind in key_types for x in (_RSA if kind == "ssh-rsa" else (kind,))]
    first = [kind for kind in wanted if kind in offered]
    options.key_types = (*first, *(kind for kind in offered if kind not in first))


def _no_ssh(config: SshConfig, error: Exception) -> UnreachableError:
    return UnreachableError(
        f"{quote(config.host)} port {config.port} does not speak ssh as it should",
        hint="is it the right port, and does the jump host let us through?"
        if config.proxy
        else "is it the right port?",
        details=[str(error)] if str(error) else [],
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _paramiko() -> ModuleType:
    with warnings.catch_warnings():
        # Debian's version names ciphers that its cryptography is about to retire.
        warnings.simplefilter("ignore")
        import paramiko
    # It reports each failed attempt as an error, with a traceback; we say it better.
    own_logger = logging.getLogger("paramiko")
    own_logger.addHandler(logging.NullHandler())
    own_logger.propagate = False
    return paramiko
