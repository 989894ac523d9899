"""Invites machines to enrol by themselves, once, and for a limited time (D52)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from pathlib import Path

from byteback import log
from byteback.errors import (
    BusyError,
    BytebackError,
    NotSetUpError,
    RefusedError,
    quote,
)
from byteback.model import invitation
from byteback.model.hostname import check_host_name, is_same_host
from byteback.model.invitation import Invitation, Word
from byteback.model.key_line import format_invitation_line
from byteback.model.public_key import PublicKey, parse_public_key
from byteback.server.access import authorized_keys
from byteback.server.access.authorized_keys import KeyFile
from byteback.server.store.layout import Store

HOST_KEYS = tuple(
    Path(f"/etc/ssh/ssh_host_{kind}_key.pub") for kind in ("ed25519", "ecdsa", "rsa")
)
MAX_OPEN = 5000
ZONE = Path("/etc/localtime")  # tzfile(5)


def invite(
    store: Store, name: str, valid_s: int, host_key: PublicKey, program: Path
) -> tuple[Word, Invitation]:
    """Make an invitation, for the client ``name`` or for any new one if it is empty.

    ``program`` is byteback-setup-client-receive. Invitations whose time is over go.
    Raises RefusedError if the name is taken, UsageError for a name that cannot be one.
    """
    now = time.time()
    word = invitation.new_word(os.urandom(invitation.SECRET_BYTES), host_key)
    key = word.key
    made = invitation.new_invitation(key, int(now + valid_s), name)
    with authorized_keys.editing(store) as key_file:
        known = dict(_lines(key_file))
        key_file.drop(at for at, one in known.items() if one.until <= now)
        if name:
            _check_is_new(store, key_file, name)
        count = sum(1 for _ in _lines(key_file))
        if count >= MAX_OPEN:
            raise RefusedError(
                f"there are {count} open invitations",
                hint="byteback-clients invite --withdraw ends one",
            )
        line = format_invitation_line(key, program, made.token, _sshd_time(made.until))
        key_file.lines.append(line)
    log.audit("INVITE", host=name or None, invitation=made.number, seconds=valid_s)
    return word, made


def open_invitations(store: Store) -> list[Invitation]:
    """The invitations that a machine can still use, the next to end first."""
    found = [one for _, one in _lines(authorized_keys.read(store))]
    return sorted(
        (one for one in found if one.until > time.time()), key=lambda one: one.until
    )


def withdraw(store: Store, number: str) -> Invitation:
    """End an invitation before its time. Raises NotSetUpError if there is none."""
    with authorized_keys.editing(store) as key_file:
        for at, one in _lines(key_file):
            if one.number == number:
                key_file.drop([at])
                break
        else:
            raise NotSetUpError(
                f"there is no open invitation {quote(number)}",
                hint="byteback-clients invite --open shows them",
            )
    log.audit("INVITE", invitation=number, withdrawn=True)
    return one


def forget(key_file: KeyFile, name: str) -> None:
    """Leave out the invitations for the client ``name``, which is one, or was one.

    A machine that came another way may have kept its word. Its holder would get the
    name once it is free again.
    """
    named = [(at, one.name) for at, one in _lines(key_file) if one.name]
    key_file.drop(at for at, one in named if is_same_host(one, name))


def invited_names(key_file: KeyFile) -> set[str]:
    """The names that invitations keep for clients which are to come."""
    return {one.name for _, one in _lines(key_file) if one.name}


def has_ended(store: Store) -> bool:
    """True if there is an invitation whose time is over."""
    now = time.time()
    return any(one.until <= now for _, one in _lines(authorized_keys.read(store)))


def forget_ended(store: Store) -> None:
    """Take away the invitations whose time is over; what fails is for the next run.

    No clock that is set back later can revive them.
    """
    with contextlib.suppress(BytebackError):
        if not has_ended(store):
            return
        now = time.time()
        with authorized_keys.editing(store) as key_file:
            key_file.drop([at for at, one in _lines(key_file) if one.until <= now])


def check_clock(store: Store) -> None:
    """Raise BusyError if by this clock nothing can be said of an invitation's end."""
    from byteback.server.store import clock

    if clock.fault(store, time.time()) is not None:
        raise BusyError(
            "the server's clock has jumped, so that it takes no invitation",
            hint="its administrator sets the clock right, or says that it is: "
            "'byteback-prune --prune --confirm-clock'",
        )


def find_line(key_file: KeyFile, token: str, client: str) -> int:
    """The place of an invitation's line that lets ``client`` enrol now.

    Asked under the file's lock: a connection may have been held open since the
    invitation was used. Raises RefusedError.
    """
    for at, one in _lines(key_file):
        if one.token != token or one.until <= time.time():
            continue
        if one.name and not is_same_host(one.name, client):
            raise RefusedError(
                f"this invitation is for the client {quote(one.name)}",
                hint=f"byteback-setup-client --hostname {one.name}, or ask the "
                "server's administrator for another invitation",
            )
        return at
    raise RefusedError(
        "this invitation was used, or is over",
        hint="the server's administrator can make another one: 'byteback-clients "
        "invite'",
    )


def read_host_key(path: Path | None) -> PublicKey:
    """The server's host key, from ``path`` or where sshd has it.

    Raises NotSetUpError if there is none.
    """
    for place in HOST_KEYS if path is None else (path,):
        try:
            return parse_public_key(place.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            continue
    wanted = "in /etc/ssh" if path is None else f"in {quote(str(path))}"
    raise NotSetUpError(
        f"there is no public host key of this server's sshd {wanted}",
        hint="name it: --host-key FILE.pub",
    )


def _sshd_time(seconds: int) -> str:
    """A moment as sshd reads ``expiry-time``: by the machine's zone, not by ``$TZ``.

    An administrator's own zone would end the word hours too soon, or too late.
    """
    from zoneinfo import ZoneInfo

    zone: tzinfo = UTC
    with contextlib.suppress(OSError, ValueError), ZONE.open("rb") as file:
        zone = ZoneInfo.from_file(file)
    return f"{datetime.fromtimestamp(seconds, zone):%Y%m%d%H%M%S}"


def _check_is_new(store: Store, key_file: KeyFile, name: str) -> None:
    check_host_name(name)
    taken = {line.host for line in key_file.key_lines().values() if line.host}
    if any(is_same_host(one, name) for one in {*taken, *store.hosts()}):
        raise RefusedError(
            f"the name {quote(name)} is taken",
            hint="byteback-clients key --replace gives a client that is there another "
            "key",
        )


def _lines(key_file: KeyFile) -> Iterator[tuple[int, Invitation]]:
    for at, line in key_file.key_lines().items():
        token = line.invitation
        found = None if token is None else invitation.parse_token(token)
        if found is not None:
            yield at, found
