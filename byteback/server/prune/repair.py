"""Finds what crashes have left behind in the store and puts it right.

Each repair is one line in the log. Where there is none to make nothing is written, and
no program is started.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from byteback.errors import BusyError, BytebackError, LockedError, quote
from byteback.model.snapshot import CURRENT, parse_snapshot_name
from byteback.server.access import authorized_keys
from byteback.server.prune.looked import client_names
from byteback.server.snapshots import seal, take
from byteback.server.snapshots.sealing import Seals
from byteback.server.store import reserve
from byteback.server.store.layout import DISCARDED, Store
from byteback.system.btrfs import commands

logger = logging.getLogger(__name__)


def repair(store: Store, clients: Iterable[str]) -> list[str]:
    """Look through these clients; the caller is the store's user and holds its lock.

    What cannot be put right is logged. Returns the clients that the next run has to
    look at again.
    """
    seals = Seals(store)
    unsettled = []
    for client in clients:
        try:
            if not _repair_host(store, client, seals):
                unsettled.append(client)
        except (LockedError, BusyError):
            unsettled.append(client)  # a transfer is on: next time is soon enough
        except (OSError, BytebackError) as error:
            unsettled.append(client)
            reason = error.message if isinstance(error, BytebackError) else error
            logger.warning("cannot put %s right: %s", quote(client), reason)
    return unsettled


def look_after_seals(store: Store) -> None:
    """The sealed snapshots' part of repair, before anything is decided by names."""
    seals = Seals(store)
    for client in client_names(store):
        try:
            seals.look_after(client, *_sorted_out(store.trees(client)))
        except (OSError, BytebackError) as error:
            logger.warning("cannot look at %s: %s", quote(client), error)


def clear_discarded(store: Store, client: str) -> None:
    """Delete what a discard has left; the caller holds the host's lock."""
    left = store.host_directory(client) / DISCARDED
    if commands.is_subvolume(left):
        commands.delete_on_full_disc(
            left, lambda: reserve.release(store), seal.deletion_check(None)
        )
    else:
        take.discard_left(left)


def _repair_host(store: Store, client: str, seals: Seals) -> bool:
    """Put one client right; True if nothing is left for the next run."""
    try:
        dated, names = _sorted_out(store.trees(client))
        unsealed = seals.look_after(client, dated, names)
        if unsealed is None:
            dated, names = _sorted_out(store.trees(client))
            unsealed = dated
    except PermissionError:
        return True  # not ours
    except FileNotFoundError:
        return True  # gone meanwhile
    if DISCARDED in names:
        with store.lock_host(client):
            clear_discarded(store, client)
        logger.info("deleted what was left of a discarded backup of %s", quote(client))
    if CURRENT not in names and dated and _is_enrolled(store, client):
        with store.lock_host(client):
            take.ensure_current(store, client)
        logger.warning(
            "%s had lost its current: made it again from its newest snapshot",
            quote(client),
        )
    if CURRENT not in names:
        return False  # its key may come, which changes nothing here
    for name in unsealed:
        _close(store, client, name)
    return not (seals.are_wanted and unsealed)


def _sorted_out(names: list[str]) -> tuple[list[str], set[str]]:
    """Names of snapshots, and all others."""
    dated = [name for name in names if parse_snapshot_name(name) is not None]
    return dated, set(names) - set(dated)


def _is_enrolled(store: Store, client: str) -> bool:
    """True if a key may send backups; if none may, the client may be retired."""
    with contextlib.suppress(BytebackError, OSError):
        return bool(authorized_keys.read(store).lines_of_host(client))
    return False


def _close(store: Store, client: str, name: str) -> None:
    """Set a snapshot read-only that is not.

    A run that was killed while it deleted one as the store's user leaves it writable,
    and so did the old tool. The kernel says so without being asked by a program; of
    one that is not ours it says that we may not write, which is true.
    """
    place = f"{store.root}/{client}/{name}"  # a Path for each would take as long
    if not os.access(place, os.W_OK) or not commands.is_subvolume(path := Path(place)):
        return
    commands.set_read_only(path, True)
    logger.info("set %s/%s read-only", client, name)
