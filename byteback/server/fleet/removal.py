"""Removes a client with all that the server has of it."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from functools import partial
from pathlib import Path

from byteback import log
from byteback.errors import BusyError, BytebackError, ToolError, UsageError, quote
from byteback.model.size import format_count
from byteback.model.snapshot import CURRENT, parse_snapshot_name
from byteback.server.accounting import ledger_clients
from byteback.server.fleet import ends, keys, notes, roster, sessions
from byteback.server.search import indexing
from byteback.server.snapshots import renamed, seal, sealing
from byteback.server.store import change, key_change, reserve, settings
from byteback.server.store.change import Change
from byteback.server.store.layout import DISCARDED, Store
from byteback.system import privilege, process
from byteback.system.btrfs import commands, nested, subvolume

logger = logging.getLogger(__name__)

SPACE_TIMEOUT_S = 120.0


def plan(store: Store, name: str) -> tuple[str, list[str]]:
    """A client's name, and a line about each thing that goes with it.

    Raises NotSetUpError if there is no such client.
    """
    client = roster.client_named(store, name)
    lines = [f"the key {key.fingerprint}" for key in keys.show(store, client)]
    snapshots, others = _sorted_out(_names(store, client))
    if snapshots:
        count = format_count(len(snapshots), "snapshot")
        lines.append(f"{count}, from {snapshots[0]} to {snapshots[-1]}")
    lines += [f"{quote(name)}, a copy of an administrator's" for name in others]
    return client, [*lines, "current, the index, the ledger's lines and all notes"]


def remove(store: Store, client: str, *, keep_others: bool = False) -> list[str]:
    """Remove a client for good; lines about what was done.

    With ``keep_others`` what has no snapshot's name stays. The caller is root, acting
    as the store's user, and holds the store's lock. Raises LockedError if a session of
    the client is under way, ToolError if something cannot be deleted.
    """
    with sessions.alone(store, client):
        place = change.store_name(store.root)
        number = directory_number(store, client)
        change.write(
            Change(change.REMOVE, client, "", number, keep_others, place),
        )
        return _go_on(store, client, number, keep_others=keep_others)


def go_on(store: Store, found: Change) -> None:
    """Finish a removal that was cut off; raises as remove does."""
    with sessions.alone(store, found.client):
        _go_on(store, found.client, found.directory, keep_others=found.keep_others)


def directory_number(store: Store, client: str) -> int:
    """The inode number of a client's own directory; 0 if there is none."""
    try:
        status = store.host_directory(client).lstat()
    except FileNotFoundError:
        return 0
    return status.st_ino if stat.S_ISDIR(status.st_mode) else 0


def _go_on(store: Store, client: str, number: int, *, keep_others: bool) -> list[str]:
    """Each step can be done again. The record goes last.

    On a full disc the key goes when there is room. It opens nothing meanwhile.
    """
    with contextlib.suppress(BytebackError, OSError):
        _take_key_away(store, client)
    deleted = 0
    left: list[str] = []
    if number and directory_number(store, client) == number:
        deleted, left = _delete_trees(store, client, keep_others=keep_others)
    _take_key_away_at_last(store, client)
    ledger_clients.forget(store, client)
    notes.forget(store, client)
    ends.forget(client)
    renamed.forget(client)
    change.clear()
    log.audit("REMOVE", host=client, snapshots=deleted, left=" ".join(left) or None)
    count = format_count(deleted, "snapshot")
    lines = [f"removed {client}: {count}; their space comes back within minutes"]
    lines += _remarks(client)
    return lines + [f"left {quote(f'{client}/{name}')} alone" for name in left]


def _take_key_away(store: Store, client: str) -> None:
    keys.drop_lines(store, client)
    key_change.note(store, client)


def _take_key_away_at_last(store: Store, client: str) -> None:
    """On a full disc, what was deleted gives its room back, and then the reserve does.

    Raises BusyError if that is not enough.
    """
    for make_room in (_do_nothing, _wait_for_room, _give_up_reserve):
        make_room(store)
        try:
            _take_key_away(store, client)
        except (BytebackError, OSError) as error:
            logger.info("cannot take the key away: %s", error)
        else:
            return
    raise BusyError(
        f"cannot take the key of {quote(client)} away: the disc may be full",
        hint="its backups are gone, and its key opens nothing; the next run of pruning "
        "goes on when there is room",
    )


def _do_nothing(_: Store) -> None:
    return


def _wait_for_room(store: Store) -> None:
    commands.wait_for_deletions(store.root, SPACE_TIMEOUT_S)


def _give_up_reserve(store: Store) -> None:
    if reserve.release(store):
        commands.sync(store.root)


def _remarks(client: str) -> list[str]:
    """A warning that root's settings of the name wait for its next client."""
    with contextlib.suppress(UsageError):
        if settings.has_table(client):
            told = f'server.toml has a table [host."{client}"]: take it out, for it '
            return [f"{told}is that of the next client of the name, too"]
    return []


def _delete_trees(
    store: Store, client: str, *, keep_others: bool
) -> tuple[int, list[str]]:
    """Delete what is in a client's directory, ``current`` last.

    Returns the number of snapshots, and the names of what is left: what is sealed as
    another client's (D29), and an administrator's own copies if they are to be kept.
    """
    directory = store.host_directory(client)
    names = _names(store, client)
    snapshots, others = _sorted_out(names)
    left = list(others) if keep_others else []
    last = [name for name in (DISCARDED, CURRENT) if name in names]
    deleted = 0
    for name in [*snapshots, *(() if keep_others else others), *last]:
        if not _is_own(store, client, name):
            left.append(name)
            continue
        _delete(store, client, directory / name)
        deleted += name in snapshots
    if not left:
        for entry in directory.iterdir():  # files: there are no directories any more
            entry.unlink()
        directory.rmdir()
    return deleted, left


def _delete(store: Store, client: str, path: Path) -> None:
    if commands.is_subvolume(path):
        _delete_nested(store, client, path)
        commands.delete_on_full_disc(
            path, partial(_make_room, store), partial(_may_delete, client)
        )
        logger.info("deleted %s/%s", client, path.name)
        return
    # Not by the modes that a client gave what is in it.
    process.run(["chmod", "--recursive", "u+rwX", "--", path], tolerate=range(256))
    process.run(["rm", "--recursive", "--force", "--one-file-system", "--", path])


def _delete_nested(store: Store, client: str, path: Path) -> None:
    """Delete the subvolumes inside one, the innermost first, or it could not go.

    No client can make any: an administrator did, or the store's user. Each is known by
    its number from what btrfs lists, so that no exchanged path leads to another one;
    and what is sealed as another client's stays, as everywhere.
    """
    top, above = subvolume.read_at(path), subvolume.read_at(store.root)
    if top is None or above is None or top.number == above.number:
        return
    with privilege.raised():
        fd = os.open(store.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            found = nested.inside(fd, top.number)
        finally:
            os.close(fd)
    for number, name in found:
        logger.info("deleting the subvolume %s in %s", quote(name), quote(str(path)))
        commands.delete_on_full_disc(
            path / name,
            partial(_make_room, store),
            partial(_is_nested, client, number),
        )


def _is_nested(client: str, number: int, fd: int) -> bool:
    found = subvolume.read(fd)
    return found is not None and found.number == number and _may_delete(client, fd)


def _make_room(store: Store) -> bool:
    return reserve.release(store) or indexing.give_up(store)


def _may_delete(client: str, fd: int) -> bool:
    """Root's check of the very directory: it is sealed as the client's, or not at all.

    A writable one with another's seal is a copy that was left unfinished.
    """
    claim = seal.read_claim(fd)
    if claim is None or claim.partition("/")[0] == client:
        return True
    return not subvolume.is_read_only(fd)


def _is_own(store: Store, client: str, name: str) -> bool:
    try:
        claim = sealing.claims(store, client, [name]).get(name)
    except OSError as error:
        raise ToolError(f"cannot look at {quote(name)}: {error.strerror}") from None
    return claim is None or claim.partition("/")[0] == client


def _sorted_out(names: list[str]) -> tuple[list[str], list[str]]:
    """Names of snapshots, and those of an administrator's own copies."""
    snapshots = [name for name in names if parse_snapshot_name(name) is not None]
    others = set(names) - set(snapshots) - {CURRENT, DISCARDED}
    return snapshots, sorted(others)


def _names(store: Store, client: str) -> list[str]:
    try:
        return store.trees(client)
    except FileNotFoundError:
        return []
