"""Logging in as an administrator would: agent, keys, then passwords."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from byteback.client.setup.host_key import invoking_home
from byteback.client.setup.questions import Questions
from byteback.errors import BytebackError, RefusedError, escape, quote
from byteback.model.public_key import PublicKey, parse_public_key
from byteback.system.ssh import session as ssh
from byteback.system.ssh.config import SshConfig
from byteback.system.ssh.session import LoginKey, PassphraseNeededError, Session

logger = logging.getLogger(__name__)

# sshd hangs up after MaxAuthTries failures, 6 unless it was lowered.
FAILURES_A_CONNECTION = 4
MAX_KEYS = 12
PASSWORD_TRIES = 3
DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_ADMIN_KEY = (
    "on the server 'sudo byteback-setup-server --admin-key FILE.pub' lets your key in"
)


class LoginRefusedError(RefusedError):
    """The server is there, and takes nothing that we can offer."""


Connect = Callable[[], contextlib.AbstractContextManager[Session]]


class _LoginConnection:
    """The connection at hand, and how much of the server's patience is used up."""

    def __init__(self, stack: contextlib.ExitStack, connect: Connect) -> None:
        self._stack = stack
        self._connect = connect
        self.parting_words: tuple[str, ...] = ()
        self.methods = self.reconnect()

    def reconnect(self) -> frozenset[str]:
        """Connect anew; returns what the server would take, nothing if we are in."""
        self._stack.close()
        self.session = self._stack.enter_context(self._connect())
        self.failures = 0
        return self.session.login_without()

    def note_failure(self) -> None:
        """Count one more attempt that led nowhere, and keep what the server said."""
        self.failures += 1
        self.parting_words = self.session.parting_words or self.parting_words

    def knock_if_worn_out(self) -> None:
        """Connect anew if the server has hung up, or is about to."""
        is_worn_out = self.failures >= FAILURES_A_CONNECTION
        if not self.session.is_open or (is_worn_out and not self.session.further):
            self.reconnect()


@contextlib.contextmanager
def logged_in(
    config: SshConfig,
    key_types: Sequence[str],
    check: Callable[[PublicKey], None],
    questions: Questions,
    ignored: frozenset[bytes],
    is_needed: Callable[[], bool],
) -> Iterator[Session]:
    """A session in which commands can be run, for the length of the block.

    ``check`` raises if the server's key cannot be trusted; nothing is offered before
    it returns. Keys whose blobs are ``ignored`` are not tried. ``is_needed`` is called
    before a passphrase or a password is asked for: False gives up. Raises
    LoginRefusedError, or UnreachableError.
    """

    @contextlib.contextmanager
    def connect() -> Iterator[Session]:
        with ssh.open_session(config, key_types) as session:
            check(session.server_key)
            if session.is_open:
                yield session
                return
        # The server hung up while the user compared fingerprints.
        with ssh.open_session(config, key_types) as session:
            check(session.server_key)
            yield session

    with contextlib.ExitStack() as stack:
        door = _LoginConnection(stack, connect)
        if door.methods:
            keys = candidate_keys(config, questions, ignored, is_needed)
            is_in = _try_keys(door, keys) or (
                is_needed() and _try_secrets(door, config, questions)
            )
            if not is_in:
                raise _refused(config, door, questions)
        yield door.session


def candidate_keys(
    config: SshConfig,
    questions: Questions,
    ignored: frozenset[bytes],
    is_needed: Callable[[], bool],
) -> Iterator[LoginKey]:
    """The keys worth trying, likeliest first; passphrases are asked for last."""
    paths = identity_files(config)
    configured = {blob for blob in map(_public_blob, paths) if blob is not None}
    tried = set(ignored)
    agent = sorted(ssh.agent_keys(config), key=lambda key: key.blob not in configured)
    if config.identities_only:
        agent = [key for key in agent if key.blob in configured]
    locked = []
    for key in agent:
        if key.blob not in tried:
            tried.add(key.blob)
            yield key
    for path in paths:
        try:
            loaded = ssh.load_key(path)
        except PassphraseNeededError:
            locked.append(path)
            continue
        if loaded is not None and loaded.blob not in tried:
            tried.add(loaded.blob)
            yield loaded
    if not locked or not is_needed():
        return
    for path in locked:
        unlocked = None if _public_blob(path) in tried else _unlock(path, questions)
        if unlocked is not None and unlocked.blob not in tried:
            yield unlocked


def identity_files(config: SshConfig) -> list[Path]:
    """The private key files that ssh would try, and those of who called sudo."""
    paths = list(config.identity_files)
    home = invoking_home()
    if home is not None and not config.identities_only:
        paths += [home / ".ssh" / name for name in DEFAULT_KEYS]
    return [path for path in dict.fromkeys(paths) if path.is_file()]


def _try_keys(door: _LoginConnection, keys: Iterator[LoginKey]) -> bool:
    if "publickey" not in door.methods:
        return False
    for key in itertools.islice(keys, MAX_KEYS):
        door.knock_if_worn_out()
        logger.debug("trying %s", key.label)
        if door.session.login_with_key(key):
            logger.info("logged in with %s", key.label)
            return True
        if door.session.further:  # the key was right, and one factor of several
            return False
        door.note_failure()
    return False


def _try_secrets(
    door: _LoginConnection, config: SshConfig, questions: Questions
) -> bool:
    prompt = f"{escape(config.user)}@{escape(config.host)}'s password: "
    if questions.can_ask_secret():
        logger.info("no key at hand opens the server; Enter alone gives up")
    for _ in range(PASSWORD_TRIES):
        methods = door.session.further or door.methods
        if "password" in methods:
            password = questions.secret(prompt)
            if not password:  # an empty answer: leave it at that
                return False
            door.knock_if_worn_out()
            is_in = door.session.login_with_password(password)
        elif "keyboard-interactive" in methods and questions.can_ask_secret():
            door.knock_if_worn_out()
            is_in = door.session.login_by_answers(
                lambda asked: questions.secret(escape(asked.strip()) + " ") or ""
            )
        else:
            return False
        if is_in:
            return True
        door.note_failure()
    return False


def _unlock(path: Path, questions: Questions) -> LoginKey | None:
    for _ in range(PASSWORD_TRIES):
        passphrase = questions.secret(f"Passphrase for the key {quote(str(path))}: ")
        if not passphrase:  # an empty answer: leave this key out
            return None
        try:
            return ssh.load_key(path, passphrase)
        except PassphraseNeededError:
            continue
    return None


def _public_blob(path: Path) -> bytes | None:
    with contextlib.suppress(BytebackError, OSError, UnicodeDecodeError):
        return parse_public_key(path.with_name(f"{path.name}.pub").read_text()).blob
    return None


def _refused(
    config: SshConfig, door: _LoginConnection, questions: Questions
) -> LoginRefusedError:
    who = f"{quote(config.host)} does not let {quote(config.user)} in"
    takes_secrets = {"password", "keyboard-interactive"} & door.methods
    if door.parting_words:
        return LoginRefusedError(
            f"{who}: it hung up when a key was shown",
            hint="its own words follow; 'chage --list' on the server shows whether "
            "that user's account has expired",
            details=door.parting_words,
        )
    if takes_secrets and not questions.can_ask_secret():
        return LoginRefusedError(
            f"{who}: no key at hand fits, and there is no terminal to ask for a "
            "password on",
            hint=f"{_ADMIN_KEY}; or run this on a terminal, or with SSH_ASKPASS",
        )
    if takes_secrets:
        return LoginRefusedError(
            f"{who}: permission denied (no key at hand fits, and no password did)",
            hint=f"{_ADMIN_KEY}; byteback-setup-client(1) names other ways",
        )
    return LoginRefusedError(
        f"{who}: it takes keys only, and no key at hand fits",
        hint=f"{_ADMIN_KEY}; or run this with your ssh agent (sudo "
        "--preserve-env=SSH_AUTH_SOCK), or log in as another user (--login)",
    )
