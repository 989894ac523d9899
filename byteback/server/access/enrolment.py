"""Enrolling a client: its directory, its ``current``, and its key's one line."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from byteback import log
from byteback.errors import (
    BytebackError,
    NotSetUpError,
    RefusedError,
    ToolError,
    UsageError,
    quote,
)
from byteback.model.hostname import check_host_name, is_same_host
from byteback.model.invitation import parse_token
from byteback.model.key_line import (
    ENROL,
    KeyLine,
    format_client_line,
    parse_key_line,
)
from byteback.model.public_key import PublicKey, parse_public_key
from byteback.model.snapshot import CURRENT
from byteback.server.access import authorized_keys, invitations
from byteback.server.access.authorized_keys import KeyFile
from byteback.server.store import change, key_change, retirement
from byteback.server.store.layout import Store
from byteback.system import mounts
from byteback.system.btrfs import commands
from byteback.wire.failures import Reason

ENROLLED = "enrolled"
ALREADY = "already"
REPLACED = "replaced"
MODERNISED = "modernised"

MAX_REQUEST = 32768  # bytes; far above the longest key
# Restrictions of an administrator's own that outlive a rewrite of the line.
_KEPT_OPTIONS = ("expiry-time",)
_ADDRESS_CHARACTERS = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:/,*?!_-"
)


@dataclass(frozen=True)
class EnrolRequest:
    """A request: this key is to be that client's."""

    host: str
    key: PublicKey
    replace_key: bool = False
    address: str | None = None  # the key is to work from there only
    as_json: bool = False


@dataclass(frozen=True)
class Enrolment:
    """The result: ``enrolled``, ``already``, ``replaced`` or ``modernised``."""

    result: str
    host: str
    fingerprint: str


def parse_words(words: tuple[str, ...]) -> EnrolRequest:
    """``NAME TYPE BASE64 [COMMENT...]`` as a request. Raises UsageError.

    The key may be one word in quotes, too.
    """
    if len(" ".join(words[1:]).split()) < 2:
        raise UsageError(
            "a client's name and its public key are needed",
            hint=f"{ENROL} NAME ssh-ed25519 AAAA...",
        )
    return EnrolRequest(
        check_host_name(words[0]), parse_public_key(" ".join(words[1:]))
    )


def parse_forced(original_command: str | None) -> EnrolRequest:
    """The request of an administrator whose key may only enrol.

    It comes from the far end as it was typed there, so that no shell ever sees it and
    nothing but ``byteback-setup-client-receive [--json] [--replace-key] NAME KEY`` is
    taken. Raises RefusedError, or UsageError for a bad name or key.
    """
    if not original_command:
        raise RefusedError(
            "this key can only enrol clients, and opens no shell",
            hint="use it with byteback-setup-client",
        )
    words = original_command.split()
    is_sane = original_command.isprintable() and len(original_command) <= MAX_REQUEST
    if not is_sane or words[:1] != [ENROL]:
        raise RefusedError(
            "this key can only enrol clients; "
            f"{quote(original_command[:80])} is not allowed",
            hint="use it with byteback-setup-client",
        )
    options = []
    for word in words[1:]:
        if not word.startswith("-"):
            break
        options.append(word)
    unknown = [word for word in options if word not in ("--json", "--replace-key")]
    if unknown:
        raise RefusedError(f"the option {quote(unknown[0][:80])} is not allowed here")
    request = parse_words(tuple(words[1 + len(options) :]))
    return EnrolRequest(
        request.host,
        request.key,
        replace_key="--replace-key" in options,
        as_json="--json" in options,
    )


def check_address(address: str) -> str:
    """``address`` if it can stand in a ``from=`` option. Raises UsageError."""
    if not address or not _ADDRESS_CHARACTERS.issuperset(address):
        raise UsageError(
            f"{quote(address)} is no address, network or pattern",
            hint="write it as sshd's from= takes it, such as 192.0.2.0/24",
        )
    return address


def enrol(
    store: Store, request: EnrolRequest, program: Path, token: str | None = None
) -> Enrolment:
    """Make ``request.host`` a client with that key; harmless when done again.

    ``program`` is byteback-receive. The key's line comes last, so that a crash leaves
    no key without a place to write, and the next call finishes the work. ``token``
    names the invitation by which the request came: its line goes in the very moment in
    which the key's line comes.

    Raises RefusedError for a name or a key that belongs to another client: an attacker
    who got a name with a history could read all of it. Raises NotSetUpError if this is
    no store on btrfs that can be written to.
    """
    try:
        with authorized_keys.editing(store) as key_file:
            request = replace(request, host=_client_name(store, key_file, request.host))
            if token is not None:
                # First: who has none that serves is told nothing of any client.
                invitations.find_line(key_file, token, request.host)
                invitations.check_clock(store)
                _check_keeps_lines(key_file, request, program)
            change.check(request.host)
            retirement.check(store, request.host)
            result = _enrol_locked(store, key_file, request, program)
            if token is not None:
                key_file.drop([invitations.find_line(key_file, token, request.host)])
            invitations.forget(key_file, request.host)
    except RefusedError as error:
        if token is not None and error.reason == Reason.NAME_TAKEN:
            error.hint = "the server's administrator gives a client that is there "
            error.hint += "another key with 'byteback-clients key --replace'"
        _audit("REFUSED", request, error.message, token)
        raise
    if result in (ENROLLED, REPLACED):
        # Also of a new name: an administrator may have freed it by hand.
        with contextlib.suppress(BytebackError):  # the disc is full: the key is in
            key_change.note(store, request.host)
    _audit("ENROL", request, result, token)
    return Enrolment(result, request.host, request.key.fingerprint)


def _check_keeps_lines(key_file: KeyFile, request: EnrolRequest, program: Path) -> None:
    """Raise RefusedError if the request would change a line that is there.

    It has a limit of an administrator's, perhaps, and a public key is no secret.
    """
    own = key_file.lines_of_key(request.key.blob)
    is_client = any(line.host == request.host for line in own.values())
    if is_client and not (len(own) == 1 and _is_up_to_date(request, program, own)):
        raise RefusedError(
            f"key {request.key.fingerprint} is the client's already, and its line is "
            "not changed by an invitation",
            hint="byteback-setup-client with a login brings the line up to date",
        )


def _client_name(store: Store, key_file: KeyFile, name: str) -> str:
    """``name`` as it is written already, by a client or a key of that name."""
    lines = key_file.key_lines().values()
    known = {line.host for line in lines if line.host is not None}
    known |= set(store.hosts())
    if name in known:
        return name
    return min((one for one in known if is_same_host(one, name)), default=name)


def _enrol_locked(
    store: Store, key_file: KeyFile, request: EnrolRequest, program: Path
) -> str:
    own = key_file.lines_of_key(request.key.blob)
    others = [at for at in key_file.lines_of_host(request.host) if at not in own]
    _check_is_free(request.host, request.key, own)
    is_taken = bool(others) or _has_history(store, request.host)
    if is_taken and not own and not request.replace_key:
        raise RefusedError(
            f"the name {quote(request.host)} belongs to another key",
            hint="if that machine lost its key or was installed again, say "
            "--replace-key: the new key can then read all its old backups",
            reason=Reason.NAME_TAKEN,
        )
    make_place(store, request.host)
    dropped = others if request.replace_key else []
    if len(own) == 1 and not dropped and _is_up_to_date(request, program, own):
        return ALREADY
    options = _further_options(request, own)
    line = format_client_line(request.key, request.host, program, options)
    key_file.put([*own, *dropped], line)
    if own and not dropped:
        return MODERNISED
    return REPLACED if is_taken else ENROLLED


def check_key_is_free(store: Store, client: str, key: PublicKey) -> None:
    """Raise RefusedError if ``key`` opens the account for anything but ``client``."""
    own = authorized_keys.read(store).lines_of_key(key.blob)
    _check_is_free(client, key, own)


def _check_is_free(client: str, key: PublicKey, own: dict[int, KeyLine]) -> None:
    for entry in own.values():
        if entry.host is None:
            raise RefusedError(
                f"key {key.fingerprint} already opens this account for "
                "something other than backups",
                hint="a client needs a key of its own: let byteback-setup-client make "
                "one, or remove that line from authorized_keys",
            )
        if entry.host != client:
            raise RefusedError(
                f"key {key.fingerprint} already belongs to the client "
                f"{quote(entry.host)}",
                hint=f"go on under that name (--hostname {entry.host}), or give the "
                "new name a new key",
            )


def _has_history(store: Store, name: str) -> bool:
    # What a call that was cut short leaves, an empty ``current`` and nothing beside
    # it, holds no client's data and does not take the name.
    directory = store.host_directory(name)
    try:
        beside = any(entry.name != CURRENT for entry in directory.iterdir())
        return beside or any((directory / CURRENT).iterdir())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise NotSetUpError(
            f"cannot use {quote(str(directory))}: {error.strerror}",
            hint="it must be a directory of the store's own user",
        ) from None


def make_place(store: Store, name: str) -> None:
    """Make a client's directory with ``current`` in it; nothing if it is there."""
    directory, current = store.host_directory(name), store.current(name)
    if directory.is_symlink() or current.is_symlink():
        raise NotSetUpError(
            f"{quote(str(directory))} or {CURRENT} in it is a symbolic link",
            hint="a client's directory must be a directory of the store itself",
        )
    is_new = not directory.exists()
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.stat().st_uid != os.geteuid():
        raise NotSetUpError(
            f"{quote(str(directory))} belongs to another user",
            hint="make it the store's user's own, with chown, or move it away",
        )
    if commands.is_subvolume(current):
        return
    if current.exists():
        raise NotSetUpError(
            f"{quote(str(current))} is a plain directory, of which no snapshot can be "
            "taken",
            hint="move it away; if it holds data, copy it into a new subvolume",
        )
    try:
        commands.create_subvolume(current)
    except ToolError as error:
        if is_new:
            with contextlib.suppress(OSError):
                directory.rmdir()
        raise _explain_no_subvolume(store, error) from None


def _explain_no_subvolume(store: Store, error: ToolError) -> NotSetUpError | ToolError:
    mount = mounts.holding(store.root)
    if mount is None or mount.fs_type == "btrfs":
        return error
    return NotSetUpError(
        f"{quote(str(store.root))} is on {mount.fs_type}, and a store must be on btrfs",
        hint="make a store with byteback-setup-server, and log in as its user, or as "
        "root",
    )


def _is_up_to_date(
    request: EnrolRequest, program: Path, own: dict[int, KeyLine]
) -> bool:
    entry = next(iter(own.values()))
    wanted = parse_key_line(format_client_line(request.key, request.host, program, {}))
    return (
        wanted is not None
        and entry.option("restrict") is not None
        and entry.option("command") == wanted.option("command")
        and request.address in (None, entry.option("from"))
    )


def _further_options(request: EnrolRequest, own: dict[int, KeyLine]) -> dict[str, str]:
    options = {}
    for entry in own.values():
        address = entry.option("from")
        # The old tool pinned every key to the address it was first seen from, which
        # breaks behind NAT. A pattern or list is an administrator's own and stays.
        if address and (entry.option("restrict") == "" or _is_pattern(address)):
            options["from"] = address
        for name in _KEPT_OPTIONS:
            value = entry.option(name)
            if value:
                options[name] = value
    if request.address is not None:
        options["from"] = request.address
    return options


def _is_pattern(address: str) -> bool:
    return not set("*?,!/").isdisjoint(address)


def _audit(verdict: str, request: EnrolRequest, result: str, token: str | None) -> None:
    used = None if token is None else parse_token(token)
    log.audit(
        verdict,
        refusal=verdict != "ENROL",
        host=request.host,
        request="enrol",
        key=request.key.fingerprint,
        result=result,
        invitation=None if used is None else used.number,
        address=os.environ.get("SSH_CONNECTION", "").partition(" ")[0] or None,
    )
