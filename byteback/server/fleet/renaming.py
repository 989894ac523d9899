"""Gives a client another name, and takes all along that bears the old one.

The move of the client's directory decides. Before it, whatever was cut off is undone;
after it, the rest is done again.
"""

from __future__ import annotations

import contextlib
import os

from byteback import log
from byteback.errors import (
    BusyError,
    BytebackError,
    NotSetUpError,
    RefusedError,
    UsageError,
    quote,
)
from byteback.model.hostname import check_host_name, is_same_host
from byteback.model.key_line import format_renamed_line
from byteback.model.size import format_count
from byteback.server.access import authorized_keys, invitations
from byteback.server.access.authorized_keys import KeyFile
from byteback.server.accounting import ledger_clients
from byteback.server.fleet import ends, notes, removal, roster, sessions
from byteback.server.snapshots import sealing
from byteback.server.store import change, key_change, move_note, settings
from byteback.server.store.change import Change
from byteback.server.store.layout import Store
from byteback.server.transfer import full_disc
from byteback.system import files


def plan(store: Store, old: str, new: str) -> list[str]:
    """A line for each step; raises as rename does."""
    client, place = _check(store, old, new)
    claims = sealing.claims(store, place, store.trees(place))
    keys = roster.keys_by_client(store).get(client, ())
    steps = [
        *([f"would move {client}/ to {new}/"] if place == client else []),
        *(f"would let the key {key.fingerprint} in as {new}" for key in keys),
        f"would record {format_count(len(claims), 'sealed snapshot')} as {new}'s",
        "would rename it in the ledger and in all notes",
    ]
    return [*steps, *_remarks(client, new)]


def rename(store: Store, old: str, new: str) -> list[str]:
    """Call the client ``old`` by the name ``new``; lines about what was done.

    The caller is root, acting as the store's user, and holds the store's lock. Raises
    NotSetUpError if there is no such client, RefusedError if the new name is taken,
    LockedError if a session of the client is under way.
    """
    client, place = _check(store, old, new)
    with sessions.alone(store, client), sessions.alone(store, new):
        _check_room(store)
        number = removal.directory_number(store, place)
        name = change.store_name(store.root)
        found = Change(change.RENAME, client, new, number, False, name)
        change.write(found)
        try:
            if place == client:
                # Of a client that was removed by hand.
                notes.forget(store, new)
                ends.forget(new)
                _move(store, found)
        except BytebackError:
            if removal.directory_number(store, new) != number:
                change.clear()
            raise
        _follow(store, found)
    return [f"{client} is called {new} now", *_remarks(client, new)]


def go_on(store: Store, found: Change) -> None:
    """Finish or undo a renaming that was cut off; raises as rename does."""
    with sessions.alone(store, found.client), sessions.alone(store, found.new):
        if removal.directory_number(store, found.new) == found.directory:
            _follow(store, found)
        else:
            change.clear()


def _check(store: Store, old: str, new: str) -> tuple[str, str]:
    """The client's name as the store writes it, and that of its directory.

    They differ where an administrator has moved the directory to the new name by hand.
    """
    check_host_name(new)
    if _is_moved_by_hand(store, old, new):
        return old, new
    client = roster.client_named(store, old)
    if client == new:
        raise UsageError(f"{quote(new)} is the client's name already")
    if not removal.directory_number(store, client):
        raise NotSetUpError(
            f"{quote(client)} has no directory here",
            hint="byteback-setup-client on that machine makes it",
        )
    moving = move_note.read(store, client)
    if moving is not None and moving.server:  # and not a damaged note, of no server's
        raise RefusedError(
            f"{quote(client)} is on its way to another server, which knows its name",
            hint=f"byteback-clients move --undo {client} lets it stay here",
        )
    _check_is_free(store, authorized_keys.read(store), client, new)
    return client, client


def _check_room(store: Store) -> None:
    """Raise BusyError on a full disc, where a renaming would stand still half-way."""
    try:
        full_disc.check(store)
    except BusyError as error:
        error.hint = "nothing was renamed: make room first"
        raise


def _is_moved_by_hand(store: Store, old: str, new: str) -> bool:
    """True if the new directory holds what is sealed as the old name's (D29)."""
    check_host_name(old)
    if old == new or removal.directory_number(store, old) or not store.is_client(new):
        return False
    # Beside some of its own, where root's record of a renaming was lost.
    claims = sealing.claims(store, new, store.trees(new)).values()
    return any(claim.partition("/")[0] == old for claim in claims)


def _check_is_free(store: Store, key_file: KeyFile, client: str, new: str) -> None:
    """Raise RefusedError if ``new`` is anything but the client itself."""
    lines = key_file.key_lines().values()
    taken = {line.host for line in lines if line.host is not None}
    # Whatever bears the name, a file or a link as well.
    taken.update(entry.name for entry in store.root.iterdir())
    if any(is_same_host(name, new) for name in taken - {client}):
        raise RefusedError(
            f"the name {quote(new)} is taken",
            hint="byteback-clients list shows all clients; what has the name in "
            f"{store.root} and is none is to be moved away by hand",
        )


def _move(store: Store, found: Change) -> None:
    """Move the directory while no client can be enrolled.

    Enrolling takes the same lock. So the name is still free, or taken for good.
    """
    with authorized_keys.editing(store) as key_file:
        _check_is_free(store, key_file, found.client, found.new)
        root = os.open(store.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            files.rename_to_free(root, found.client, found.new)
            os.fsync(root)
        except FileExistsError:
            raise RefusedError(f"the name {quote(found.new)} is taken") from None
        finally:
            os.close(root)


def _follow(store: Store, found: Change) -> None:
    """All that comes after the directory. Each step can be done again."""
    old, new = found.client, found.new
    with authorized_keys.editing(store) as key_file:
        for at, line in key_file.key_lines().items():
            if line.host is not None and is_same_host(line.host, old):
                key_file.lines[at] = format_renamed_line(key_file.lines[at], new)
        for name in (old, new):
            invitations.forget(key_file, name)
    # Of the new one, too: it may have been freed by hand.
    for name in (old, new):
        key_change.note(store, name)
    count = sealing.rename_claims(store, new, old)
    notes.rename(store, old, new)
    ends.rename(old, new)
    ledger_clients.rename(store, old, new)
    change.clear()
    log.audit("RENAME", host=old, new=new, sealed=count)


def _remarks(old: str, new: str) -> list[str]:
    """What root's own files say of the old name, for an administrator to change."""
    with contextlib.suppress(UsageError):
        if settings.has_table(old):
            return [
                f'server.toml has a table [host."{old}"]: call it [host."{new}"], too'
            ]
    return []
