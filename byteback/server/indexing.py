"""Keeps the indexes of names up to date, at leisure, after the backups (D28)."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from byteback.errors import RefusedError, quote
from byteback.model.snapshot import CURRENT
from byteback.server import host_state, lineage, name_index, walk
from byteback.server.search_limits import Limits
from byteback.server.store import Store

logger = logging.getLogger(__name__)

ONE_S = 120.0  # for one host; where that is not enough, searches do without
ALL_S = 240.0  # of one run


def index_new(store: Store) -> None:
    """Make the indexes that backups have outdated; nothing here fails a run.

    What is not reached has the next run.
    """
    hosts = store.hosts()
    _remove_others(store, hosts)
    deadline = time.monotonic() + ALL_S
    for host in hosts:
        left = deadline - time.monotonic()
        if left <= 0:
            return
        try:
            _index(store, host, min(ONE_S, left))
        except OSError as error:
            logger.info("no index of the names of %s: %s", quote(host), error)


def _index(store: Store, host: str, seconds: float) -> None:
    if host_state.finished_since(store, host) is None:
        return  # a transfer is on: when it has ended there is more to know
    directory = store.host_directory(host)
    names = store.trees(host)
    current = lineage.read_trees(directory, [CURRENT])
    present = name_index.identify(store, host, current)
    if name_index.is_up_to_date(store, host, names, present):
        return
    trees = lineage.read_trees(directory, names)
    identities = name_index.identify(store, host, trees)
    limits = Limits(0, seconds, is_watched=False)
    search = walk.Search(
        directory, names, lineage.chains_of(trees), [], "copies", limits
    )
    path = name_index.path_of(store, host)
    recorded = {name: identities.get(name) for name in names}
    try:
        name_index.write(path, _directories(search), recorded)
    except RefusedError as error:
        if seconds == ONE_S:  # else the next run has more time for it
            logger.info("no index of the names of %s: %s", quote(host), error.message)
            name_index.write(path, [], recorded, is_whole=False)


def _directories(search: walk.Search) -> Iterator[tuple[str, list[str]]]:
    for place, names in walk.directories(search):
        yield place.path or "/", list(names)


def _remove_others(store: Store, hosts: list[str]) -> None:
    kept = {name_index.path_of(store, host).name for host in hosts}
    for path in (store.state / "hosts").glob("*.names"):
        if path.name not in kept:
            path.unlink(missing_ok=True)
