"""Shows, replaces and takes away a client's keys."""

from __future__ import annotations

from pathlib import Path

from byteback import log
from byteback.errors import BusyError, BytebackError, quote
from byteback.model.fleet import ClientKey
from byteback.model.hostname import check_host_name, is_same_host
from byteback.model.public_key import PublicKey
from byteback.model.size import format_count
from byteback.server.access import authorized_keys, enrolment, invitations
from byteback.server.access.enrolment import EnrolRequest
from byteback.server.fleet import roster, sessions
from byteback.server.store import key_change, reserve, retirement
from byteback.server.store.layout import Store
from byteback.server.transfer import full_disc
from byteback.system.btrfs import commands


def show(store: Store, name: str) -> tuple[ClientKey, ...]:
    """The keys of a client. Raises NotSetUpError if there is no such client."""
    return roster.keys_by_client(store).get(roster.client_named(store, name), ())


def replace(
    store: Store, name: str, key: PublicKey, program: Path, *, dry_run: bool
) -> list[str]:
    """Give a client ``key`` in place of all that it has; lines about what was done.

    ``program`` is byteback-receive. Raises NotSetUpError if there is no such client,
    RefusedError if the key is in use already for something else.
    """
    client = roster.client_named(store, name)
    old = [k for k in show(store, client) if k.fingerprint != key.fingerprint]
    if dry_run:
        enrolment.check_key_is_free(store, client, key)
        steps = [_step(client, one) for one in old]
        return [f"would let {key.fingerprint} in as {client}", *steps]
    key_change.note(store, client)
    request = EnrolRequest(client, key, replace_key=True)
    result = enrolment.enrol(store, request, program).result
    lines = [f"{result}: {client} has the key {key.fingerprint}"]
    return [*lines, *_end_sessions(store, client)] if old else lines


def revoke(store: Store, name: str, *, dry_run: bool) -> list[str]:
    """Take all of a client's keys away; lines about what was done.

    Its backups stay. Raises NotSetUpError if there is no such client.
    """
    client = roster.client_named(store, name)
    keys = show(store, client)
    if not keys:
        return [f"{client} has no key"]
    if dry_run:
        return [_step(client, key) for key in keys]
    try:
        told = take_away(store, client)
    except (BytebackError, OSError):
        try:
            full_disc.check(store)
        except BusyError:
            raise _refuse_instead(store, client) from None
        raise
    fingerprints = [key.fingerprint for key in keys]
    log.audit("REVOKE", host=client, keys=" ".join(fingerprints))
    return [*(f"took away the key {one} of {client}" for one in fingerprints), *told]


def _refuse_instead(store: Store, client: str) -> BusyError:
    """Retire a client whose key cannot be taken away, because the disc is full.

    Its own backups may have filled it. An empty note needs no room for data, and the
    reserve has the rest.
    """
    place = retirement.path(store, client)
    try:
        place.touch(mode=0o600)
    except OSError:
        reserve.release(store)
        commands.sync(store.root)
        place.touch(mode=0o600)
    sessions.end(store, client)
    log.audit("RETIRE", host=client, why="the disc is full")
    return BusyError(
        f"the disc is full, so that the key of {quote(client)} stays for now: it opens "
        "nothing, for the client is retired",
        hint=f"make room, as 'byteback-prune --discard {client}' or 'byteback-clients "
        "remove' does, and give this command again",
    )


def take_away(store: Store, client: str) -> list[str]:
    """Let no key in as ``client``, and end its sessions; lines about these."""
    # Before, too: a crash in between must not leave a connection that goes on.
    key_change.note(store, client)
    drop_lines(store, client)
    return _end_sessions(store, client)


def drop_lines(store: Store, client: str) -> None:
    """Take all of a client's keys, and invitations, out of authorized_keys."""
    with authorized_keys.editing(store) as key_file:
        invitations.forget(key_file, client)
        key_file.drop(
            at
            for at, line in key_file.key_lines().items()
            if line.host is not None and is_same_host(line.host, client)
        )


def _end_sessions(store: Store, client: str) -> list[str]:
    key_change.note(store, check_host_name(client))
    count = sessions.end(store, client)
    return [f"ended {format_count(count, 'session')} of {client}"] if count else []


def _step(client: str, key: ClientKey) -> str:
    return (
        f"would take away the key {key.fingerprint} of {client}, and end its sessions"
    )
