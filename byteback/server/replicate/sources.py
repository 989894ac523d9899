"""The first servers that this one fetches from, as root has set them up.

``/etc/byteback/replicate/NAME/`` holds for each of them where it is (``from``), the key
that reads there (``key``, ``key.pub``) and the server's own key (``known_hosts``). The
directory is root's; the store's user, who runs ssh and rsync, reads it by his group.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from byteback.errors import (
    BytebackError,
    NotSetUpError,
    UnreachableError,
    quote,
)
from byteback.model.destination import (
    Destination,
    format_destination,
    parse_destination,
)
from byteback.model.public_key import PublicKey, parse_public_key
from byteback.server.store import replica_rounds
from byteback.server.store.layout import USER
from byteback.system import files, process
from byteback.system.ssh import known_hosts, openssh

DIRECTORY = replica_rounds.CONFIGURED
MAX_BYTES = 4096
ASK_S = 60.0
_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_")


class Source(NamedTuple):
    """One first server."""

    name: str  # of its directory
    destination: Destination

    @property
    def directory(self) -> Path:
        """Where its files are."""
        return DIRECTORY / self.name

    @property
    def key(self) -> Path:
        """The private key that may read there."""
        return self.directory / "key"

    @property
    def known_hosts(self) -> Path:
        """The server's own key, as it was when it was set up."""
        return self.directory / "known_hosts"


class Prepared(NamedTuple):
    """A source that was set up, and what its administrator has to let in there."""

    source: Source
    key: PublicKey
    host_key: PublicKey


def source_of(destination: Destination) -> Source:
    """The source for a destination, whether it is set up or not."""
    pinned = openssh.pinned_name(destination)
    name = "".join(x if x in _ALLOWED else "_" for x in pinned).lstrip(".-") or "_"
    return Source(name, destination)


def configured(wanted: str | None = None) -> list[Source]:
    """The sources that are set up, or the one at the destination ``wanted``.

    Raises NotSetUpError if there is none.
    """
    if wanted is not None:
        source = source_of(parse_destination(wanted))
        known = [one for one in _all() if one.name == source.name]
        if not known:
            raise NotSetUpError(
                f"this server is not set up to fetch from {quote(wanted)}",
                hint=f"sudo byteback-replicate --set-up --from {wanted}",
            )
        return known
    found = _all()
    if not found:
        raise NotSetUpError(
            "this server is not set up to fetch from any other one",
            hint="sudo byteback-replicate --set-up --from byteback@FIRST-SERVER:",
        )
    return found


def are_set_up() -> bool:
    """True if there is a first server to fetch from."""
    return bool(_all())


def _all() -> list[Source]:
    found = []
    with contextlib.suppress(FileNotFoundError):
        for directory in sorted(DIRECTORY.iterdir()):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                with (directory / replica_rounds.FROM).open(encoding="utf-8") as file:
                    text = file.read(MAX_BYTES)
                found.append(Source(directory.name, parse_destination(text)))
    return found


def set_up(
    wanted: str, confirm: Callable[[str], bool], *, accept_new: bool
) -> Prepared:
    """Make a key for the first server at ``wanted``, and pin that server's own.

    ``confirm`` asks whether a new server is the right one; ``accept_new`` says so
    beforehand. Harmless when done again. The caller is root. Raises BytebackError if
    the server has another key than before, or is not accepted.
    """
    source = source_of(parse_destination(wanted))
    gid = grp.getgrnam(USER).gr_gid
    for directory in (DIRECTORY, source.directory):
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        os.chown(directory, 0, gid)
    key = _ensure_key(source, gid)
    host_key = _pin(source, confirm, accept_new=accept_new)
    text = f"{format_destination(source.destination)}\n"
    # Last: what is not complete is no source.
    files.write_atomically(source.directory / replica_rounds.FROM, text.encode())
    return Prepared(source, key, host_key)


def _ensure_key(source: Source, gid: int) -> PublicKey:
    if not source.key.exists():
        with tempfile.TemporaryDirectory(prefix=".key-", dir=source.directory) as made:
            path = Path(made, "key")
            comment = f"byteback replica {os.uname().nodename}"
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment]
            process.run([*argv, "-f", path])
            # For the user who runs ssh, which takes no key that others can read.
            os.chown(path, pwd.getpwnam(USER).pw_uid, gid)
            path.with_suffix(".pub").rename(source.directory / "key.pub")
            path.rename(source.key)
        files.sync_directory(source.directory)
    shown = process.run(["ssh-keygen", "-y", "-P", "", "-f", source.key])
    public = parse_public_key(shown.text)
    with contextlib.suppress(OSError, BytebackError):
        stored = parse_public_key((source.directory / "key.pub").read_text("utf-8"))
        if stored.blob == public.blob:
            return stored
    return public


def _pin(
    source: Source, confirm: Callable[[str], bool], *, accept_new: bool
) -> PublicKey:
    """The first server's host key, which is believed from now on."""
    name = openssh.pinned_name(source.destination)
    known = known_hosts.find_keys([source.known_hosts], [name])
    if known:
        return PublicKey(known[0].kind, known[0].blob, "")
    found = _ask_for_host_key(source)
    where = quote(format_destination(source.destination))
    question = (
        f"The server {where} is not known yet.\nIts {found.kind} key has the "
        f"fingerprint {found.fingerprint}.\nIs it the right one?"
    )
    if not accept_new and not confirm(question):
        raise BytebackError(
            f"the host key of {where} was not accepted: {found.fingerprint}",
            hint="compare it with 'ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub' "
            "there, and say --accept-new-host-key",
        )
    line = known_hosts.format_line(name, found.kind, found.blob)
    files.write_atomically(source.known_hosts, f"{line}\n".encode())
    return found


def _ask_for_host_key(source: Source) -> PublicKey:
    """The key that the server shows now, by ssh itself: its configuration holds."""
    name = openssh.pinned_name(source.destination)
    with tempfile.TemporaryDirectory(prefix="byteback-") as directory:
        seen = Path(directory, "known_hosts")
        # Of an option that is given twice ssh takes the first.
        argv = openssh.ssh_argv(source.destination, source.key)
        options = {
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": str(seen),
            "GlobalKnownHostsFile": "/dev/null",
            "HostKeyAlias": name,
            "HashKnownHosts": "no",
        }
        first = [
            word for key, value in options.items() for word in ("-o", f"{key}={value}")
        ]
        words = [argv[0], *first, *argv[1:], "--", source.destination.host, "true"]
        finished = process.run(words, tolerate=range(-64, 256), timeout_s=ASK_S)
        found = known_hosts.find_keys([seen], [name])
    if not found:
        raise UnreachableError(
            f"{quote(format_destination(source.destination))} cannot be reached",
            details=finished.stderr_tail,
        )
    return PublicKey(found[0].kind, found[0].blob, "")
