"""True if the server is who it says, and the memory of it for unattended runs."""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from byteback.client.settings import Files
from byteback.client.setup.questions import Questions
from byteback.errors import BytebackError, quote
from byteback.model.destination import Destination
from byteback.model.public_key import KEY_TYPES, PublicKey
from byteback.system import files as system_files
from byteback.system.ssh import known_hosts, openssh
from byteback.system.ssh.config import SshConfig
from byteback.system.ssh.known_hosts import HostKeyLine

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KnownKeys:
    """The keys that a server was seen with before."""

    pinned: tuple[HostKeyLine, ...]  # by byteback's own set-up
    seen: tuple[HostKeyLine, ...]  # by the ssh of the user who runs the set-up
    seen_elsewhere: tuple[HostKeyLine, ...] = ()  # same host, standard port

    @property
    def key_types(self) -> list[str]:
        """The types to ask the server for, so that a known key is seen again."""
        lines = [*self.pinned, *self.seen, *self.seen_elsewhere]
        return list(dict.fromkeys(x.kind for x in lines if not x.is_revoked))


def find_known_keys(
    config: SshConfig, destination: Destination, files: Files
) -> KnownKeys:
    """Look the server up where ssh would, and in /etc/byteback/known_hosts."""
    paths: list[Path] = list(config.known_hosts)
    home = invoking_home()
    if home is not None:
        paths += [home / ".ssh" / "known_hosts", home / ".ssh" / "known_hosts2"]
    if config.host_key_alias is not None:
        names, plain = [config.host_key_alias.lower()], []
    else:
        names = known_hosts.names_of(config.host, config.port)
        plain = known_hosts.names_of(config.host, known_hosts.SSH_PORT)
    pinned_name = openssh.pinned_name(destination)
    return KnownKeys(
        tuple(known_hosts.find_keys([files.known_hosts], [pinned_name])),
        tuple(known_hosts.find_keys(paths, names)),
        tuple(known_hosts.find_keys(paths, plain)),
    )


def invoking_home() -> Path | None:
    """Under sudo, the home of the user who called it: his keys and hosts count too."""
    name = os.environ.get("SUDO_USER", "")
    if os.geteuid() != 0 or name in ("", "root"):
        return None
    with contextlib.suppress(KeyError):
        return Path(pwd.getpwnam(name).pw_dir)
    return None


def check_host_key(
    key: PublicKey,
    known: KnownKeys,
    config: SshConfig,
    questions: Questions,
    *,
    accept_new: bool,
) -> None:
    """Return if ``key`` may be trusted; raises BytebackError if not.

    A changed or revoked key is never accepted, whatever was said: it is what an
    attacker between the two machines would show. A new one is accepted as ssh_config's
    StrictHostKeyChecking says, or after asking.
    """
    server = f"{quote(config.host)} port {config.port}"
    _refuse_changed(key, known, server)
    if _is_known(key, known):
        return
    strictness = config.strict_host_key_checking
    if strictness == "yes" and not accept_new:
        raise BytebackError(
            f"{server} is not known yet, and ssh's StrictHostKeyChecking is on",
            hint=f"its {key.kind} key is {key.fingerprint}: compare, and say "
            "--accept-new-host-key",
        )
    if accept_new or strictness in ("accept-new", "no"):
        logger.info("accepting the new %s key %s", key.kind, key.fingerprint)
        return
    if not questions.can_confirm():
        raise BytebackError(
            f"{server} is not known yet, and there is no terminal to ask on",
            hint=f"its {key.kind} key is {key.fingerprint}: compare, and say "
            "--accept-new-host-key",
        )
    if not questions.confirm(
        f"The server {server} is not known yet.\n"
        f"Its {key.kind} key has the fingerprint {key.fingerprint}.\n"
        "Is it the right one?"
    ):
        raise BytebackError(
            f"the host key of {server} was not accepted",
            hint="on the server: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
        )


def pin(files: Files, destination: Destination, key: PublicKey) -> None:
    """Make ``key`` the one that later, unattended runs believe. Other hosts' stay."""
    name = openssh.pinned_name(destination)
    line = known_hosts.format_line(name, key.kind, key.blob)
    before = []
    with contextlib.suppress(FileNotFoundError):
        before = files.known_hosts.read_text("utf-8", "surrogateescape").splitlines()
    kept = [x for x in before if x.split(" ")[0] != name]
    after = [*kept, line]
    if sorted(after) != sorted(before):
        text = "".join(f"{x}\n" for x in after)
        system_files.write_atomically(
            files.known_hosts, text.encode("utf-8", "surrogateescape")
        )


def _is_known(key: PublicKey, known: KnownKeys) -> bool:
    lines = [*known.pinned, *known.seen, *known.seen_elsewhere]
    return any(x.blob == key.blob for x in lines)


def _refuse_changed(key: PublicKey, known: KnownKeys, server: str) -> None:
    lines = [*known.pinned, *known.seen, *known.seen_elsewhere]
    for line in lines:
        if line.is_revoked and line.blob == key.blob:
            raise BytebackError(
                f"the host key of {server} is revoked in {quote(str(line.path))}",
                hint="its secret is known to others: the server needs a new key",
            )
    # The first list that knows the server decides. All types that it knows were asked
    # for first, so that another type means that the server has lost the known one.
    believed = [
        [x for x in source if not x.is_revoked and x.kind in KEY_TYPES]
        for source in (known.pinned, known.seen)
    ]
    first = next((source for source in believed if source), [])
    if first and not any(x.blob == key.blob for x in first):
        others = [x for source in believed for x in source if x.blob != key.blob]
        raise _changed(key, others, server)


def _changed(
    key: PublicKey, believed: Sequence[HostKeyLine], server: str
) -> BytebackError:
    """All files that hold another key, so that one look at the server is enough."""
    places = list(dict.fromkeys((line.path, line.name) for line in believed))
    commands = [f"ssh-keygen -R {shlex.quote(name)} -f {path}" for path, name in places]
    return BytebackError(
        f"THE HOST KEY OF {server} HAS CHANGED: another machine may have taken its "
        f"place. It is now {key.kind} {key.fingerprint}, unlike the one in "
        + " and ".join(quote(str(path)) for path, _ in places),
        hint="only if you know that the server was reinstalled, forget its old key "
        f"and run this again: {' && '.join(commands)}",
    )
