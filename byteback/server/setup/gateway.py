"""Compares this machine with the one that had the store before.

A store on a disc that several machines can reach, or one that moves to a new machine,
is the same server to its clients only if some things are the same there. The store
keeps a note of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import pwd
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from byteback.errors import BytebackError, quote
from byteback.server.setup import checks
from byteback.server.setup.steps import Outcome, StepRunner, found, warning
from byteback.server.store import settings
from byteback.server.store.layout import USER, Store
from byteback.system import accounts, files, host, privilege

NAME = "gateway"  # in the store's state
MAX_BYTES = 100_000


@dataclass(frozen=True)
class Gateway:
    """What clients and the store's programs know a machine by."""

    name: str
    host_keys: dict[str, str]  # kind of sshd's public key, and the key
    policy: str | None  # a hash of server.toml


def check_owner(home: Path) -> None:
    """Refuse, before anything is changed, a store of another number's user.

    Its trees would stay his: no backup could be written into them.
    """
    try:
        owner = Store(home).state.lstat().st_uid
    except OSError:
        return
    user = accounts.find_user(USER)
    if user is not None and user.pw_uid != owner != 0:
        raise BytebackError(
            f"the store belongs to number {owner}, and the user '{USER}' has number "
            f"{user.pw_uid} here",
            hint=f"if he has nothing else here, 'userdel {USER}' and run this again: "
            "he is made anew with the store's number",
        )
    if user is None and owner != 0 and accounts.has_uid(owner):
        other = pwd.getpwuid(owner).pw_name
        raise BytebackError(
            f"the store belongs to number {owner}, which is {quote(other)} here",
            hint=f"give {other} another number (usermod --uid, then chown what is "
            "his), and run this again",
        )


def compare(store: Store, runner: StepRunner) -> Iterator[Outcome]:
    """Name what is not as on the machine that had the store before, and keep a note.

    What differs stays in the note, so that it is told until it is put right.
    """
    here, before = _look(), _read(store)
    if before is not None:
        yield from _differences(here, before, store.state / NAME)
    wanted = _merge(here, before)
    if wanted != before:
        yield runner.do(
            "note in the store how its clients know this machine",
            lambda: _write(store, wanted),
        )
    elif wanted == here:
        yield found("clients know this machine as the one that has the store")


def _differences(here: Gateway, before: Gateway, note: Path) -> Iterator[Outcome]:
    other = sorted(
        kind
        for kind, key in before.host_keys.items()
        if here.host_keys.get(kind) != key
    )
    if other:
        yield warning(
            f"clients know this server by other host keys ({', '.join(other)}), and "
            f"will refuse to connect: copy /etc/ssh/ssh_host_* from {before.name} and "
            f"restart sshd; if the keys were changed on purpose, remove {note}"
        )
    if here.name != before.name and here.policy != before.policy:
        yield warning(
            f"{settings.PATH} is not the same as on {before.name}, which had the store "
            f"before: compare the two; if the difference is meant, remove {note}"
        )


def _merge(here: Gateway, before: Gateway | None) -> Gateway:
    if before is None:
        return here
    keys = {**here.host_keys, **before.host_keys}
    is_same = here.name == before.name or here.policy == before.policy
    if is_same and keys == here.host_keys:
        return here
    policy = here.policy if here.name == before.name else before.policy
    return Gateway(before.name, before.host_keys, policy)


def _look() -> Gateway:
    policy: str | None = None
    with contextlib.suppress(OSError):
        policy = hashlib.sha256(settings.PATH.read_bytes()).hexdigest()
    keys: dict[str, str] = {}
    for place in checks.host_keys():
        with contextlib.suppress(OSError, ValueError):
            kind, key = place.read_text("ascii").split()[:2]
            keys[kind] = key
    return Gateway(host.full_host_name(), keys, policy)


def _read(store: Store) -> Gateway | None:
    """The note; None if there is none, or one of no use."""
    try:
        record = json.loads(files.read_regular(store.state / NAME, MAX_BYTES))
        keys = {str(kind): str(key) for kind, key in record["host_keys"].items()}
        policy = None if record["policy"] is None else str(record["policy"])
        return Gateway(str(record["name"]), keys, policy)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    except RecursionError:  # json's, for what is nested thousands deep
        return None


def _write(store: Store, gateway: Gateway) -> None:
    user = pwd.getpwnam(USER)
    with privilege.lowered_to(user.pw_uid, user.pw_gid):
        content = json.dumps(asdict(gateway), indent=1).encode("ascii") + b"\n"
        files.write_atomically(store.state / NAME, content, mode=0o600)
