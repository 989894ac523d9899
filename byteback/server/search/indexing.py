"""Keeps the indexes of names up to date, at leisure, after the backups (D28)."""

from __future__ import annotations

import contextlib
import errno
import logging
import resource
import time
from collections.abc import Collection, Iterator, Mapping

from byteback import locking
from byteback.errors import BytebackError, LockedError, RefusedError, quote
from byteback.model.snapshot import CURRENT
from byteback.server.limits import SEARCH_MEMORY
from byteback.server.search import added_names, name_index, walk
from byteback.server.search import limits as search_limits
from byteback.server.search.limits import Limits
from byteback.server.snapshots import lineage
from byteback.server.store import state
from byteback.server.store.layout import Store
from byteback.system.btrfs import commands
from byteback.system.btrfs.subvolume import Subvolume

logger = logging.getLogger(__name__)

ONE_S = 120.0  # for one host; where that is not enough, searches do without
ALL_S = 240.0  # of one run
# Of all files of indexes, and of those that a killed run has not finished.
ENDINGS = (
    *(".names", f".names{name_index.UNFINISHED}"),
    *(name_index.ADDED, f"{name_index.ADDED}{name_index.UNFINISHED}"),
)


def index_new(store: Store, clients: Collection[str] | None = None) -> Collection[str]:
    """Make the indexes that backups have outdated; nothing here fails a run.

    Those of all clients, or of these. What is not reached has the next run, and what
    another run is at stays with that: two would write into one file. Returns the
    clients to be looked at again.
    """
    if clients is None:
        clients = store.hosts()
    left = list(clients)
    try:
        with locking.hold_directory(store.state / "hosts"), _little_memory():
            left = _index_all(store, clients)
    except LockedError:
        logger.info("another run is making indexes already")
    except FileNotFoundError:
        return []  # no client has sent anything yet
    except (OSError, BytebackError) as error:
        logger.info("no indexes of names are made: %s", error)
    return left


def give_up(store: Store) -> bool:
    """Delete all indexes to make room on a full disc; whether there were any.

    Searches find the same without, later, and they are made again when there is room.
    """
    found = list((store.state / "hosts").glob("*.names"))
    for path in [*found, *(store.state / "hosts").glob(f"*{name_index.ADDED}")]:
        with contextlib.suppress(OSError):
            path.unlink()
    if found:
        logger.warning("the disc is full: gave up the indexes of names")
    return bool(found)


def _index_all(store: Store, clients: Collection[str]) -> list[str]:
    _clear_away(store, store.hosts())
    search_limits.allow_open_files()
    deadline = time.monotonic() + ALL_S
    waiting = [client for client in clients if store.is_client(client)]
    unsettled: list[str] = []
    for at, client in enumerate(waiting):
        left = deadline - time.monotonic()
        if left <= 0:
            return unsettled + waiting[at:]
        try:
            if not _index(store, client, min(ONE_S, left)):
                unsettled.append(client)
        except (OSError, BytebackError, MemoryError) as error:
            unsettled.append(client)
            logger.info("no index of the names of %s: %s", quote(client), error)
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                return unsettled + waiting[at:]
    return unsettled


def _index(store: Store, client: str, seconds: float) -> bool:
    """Index one client; True if there is no more to do until it changes."""
    if state.finished_since(store, client) is None:
        return True  # a transfer is on: when it has ended there is more to know
    directory = store.host_directory(client)
    names = store.trees(client)
    current = lineage.read_trees(directory, [CURRENT])
    present = name_index.identify(store, client, current)
    if not name_index.is_due(store, client, names, present):
        return name_index.is_up_to_date(store, client, names, present)
    # A change by hand from now on has a transaction of its own.
    commands.sync(directory)
    trees = lineage.read_trees(directory, names)
    identities = name_index.identify(store, client, trees)
    recorded = {name: identities.get(name) for name in names}
    if added_names.add(store, client, trees, recorded):
        return True
    limits = Limits(0, seconds, is_watched=False)
    search = walk.Search(
        directory, names, lineage.chains_of(trees), [], "copies", limits
    )
    path = name_index.path_of(store, client)
    started = time.monotonic()
    try:
        name_index.write(path, _directories(search, trees), recorded)
        name_index.added_path_of(store, client).unlink(missing_ok=True)
        return True
    except _ChangedError:
        reason, recorded = "its trees changed meanwhile", {}
    except MemoryError:
        reason = "its directories are too large"
    except RefusedError as error:
        if seconds < ONE_S:
            return False  # the next run has more time for it
        reason = error.message
    logger.info("no index of the names of %s: %s", quote(client), reason)
    taken = time.monotonic() - started
    name_index.write(path, [], recorded, is_whole=False, taken=taken)
    return False


class _ChangedError(Exception):
    """A tree went while it was read: what it shared with others is not known."""


def _directories(
    search: walk.Search, trees: Mapping[str, Subvolume]
) -> Iterator[tuple[str, Collection[str]]]:
    yield from walk.directories(search)
    now = lineage.read_trees(search.directory, search.trees)
    if _uuids(now) != _uuids(trees):
        raise _ChangedError


def _uuids(trees: Mapping[str, Subvolume]) -> Mapping[str, bytes]:
    """Which trees they are: looking at ``current`` may count as a change (atime)."""
    return {name: tree.uuid for name, tree in trees.items()}


def _clear_away(store: Store, hosts: list[str]) -> None:
    """Delete what is left of clients that are gone, and of runs that were killed."""
    paths = (name_index.path_of, name_index.added_path_of)
    kept = {path_of(store, client).name for client in hosts for path_of in paths}
    for path in (store.state / "hosts").glob("*.names*"):
        if path.suffix in ENDINGS and path.name not in kept:
            with contextlib.suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def _little_memory() -> Iterator[None]:
    """As much as a search has: a client sets its names."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = (soft, SEARCH_MEMORY)
    limits = [limit for limit in wanted if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
