"""Lists the clients: by their directories, and by the keys that are let in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from byteback.errors import NotSetUpError, quote
from byteback.model.fleet import ClientKey, ListedClient, Standing, describe_key
from byteback.model.hostname import is_same_host
from byteback.model.snapshot import parse_snapshot_name
from byteback.server.access import authorized_keys
from byteback.server.store import move_note, retirement
from byteback.server.store.layout import Store

SUGGESTED = 3  # names that look like one that is none
ENDS = 3  # names at either end of a sorted list, among which are the first and last


def collect(store: Store, names: Sequence[str] = ()) -> list[ListedClient]:
    """All clients of the store, sorted, or those that are named.

    Raises NotSetUpError for a name that is no client's.
    """
    keys = keys_by_client(store)
    directories = store.hosts()
    known = {*directories, *keys}
    chosen = [find_name(known, name) for name in names] or sorted(known)
    return [
        _describe(store, name, keys.get(name, ()), has_place=name in set(directories))
        for name in chosen
    ]


def keys_by_client(store: Store) -> dict[str, tuple[ClientKey, ...]]:
    """The keys of each client that has any."""
    found: dict[str, tuple[ClientKey, ...]] = {}
    for line in authorized_keys.read(store).key_lines().values():
        if line.host is not None:
            found[line.host] = (*found.get(line.host, ()), describe_key(line))
    return found


def client_named(store: Store, name: str) -> str:
    """A client's name as the store writes it. Raises NotSetUpError if there is none."""
    return find_name({*store.hosts(), *keys_by_client(store)}, name)


def _similar(names: Iterable[str], name: str) -> str:
    """A question about the names that look like ``name``, if there are any."""
    close = get_close_matches(name.lower(), sorted(names), SUGGESTED)
    if not close:
        return ""
    return f"is it {' or '.join(quote(one) for one in close)}? "


def find_name(known: Iterable[str], name: str) -> str:
    """``name`` as it is written in ``known``; the case of its letters is no matter.

    Raises NotSetUpError.
    """
    names = set(known)
    if name in names:
        return name
    same = sorted(one for one in names if is_same_host(one, name))
    if not same:
        raise NotSetUpError(
            f"{quote(name)} is no client of this server",
            hint=f"{_similar(names, name)}byteback-clients list shows them all",
        )
    return same[0]


def _describe(
    store: Store, name: str, keys: tuple[ClientKey, ...], *, has_place: bool
) -> ListedClient:
    standing = Standing.ACTIVE if keys else Standing.NO_KEY
    retired = retirement.read(store, name)
    if not has_place:
        standing = Standing.NO_DIRECTORY
    elif retired is not None:
        standing = Standing.RETIRED
    elif (note := move_note.read(store, name)) is not None:
        is_gone = note.state == move_note.MOVED
        standing = Standing.MOVED if is_gone else Standing.MOVING
    number, oldest, newest = _history(store, name) if has_place else (0, None, None)
    return ListedClient(
        *(name, standing, keys, number, oldest, newest),
        retired=None if retired is None else retired.since,
        kept_until=None if retired is None else retired.until,
    )


def _history(store: Store, name: str) -> tuple[int, str | None, str | None]:
    """The number of a client's snapshots, the oldest, and the newest."""
    names: list[str] = []
    with contextlib.suppress(OSError):  # taken away while we look
        names = [tree for tree in store.trees(name) if parse_snapshot_name(tree)]
    # Names sort nearly as their times do: within hours, where zones differ.
    ends = store.dated(name, names[:ENDS] + names[-ENDS:])
    return (len(names), ends[0].name, ends[-1].name) if ends else (0, None, None)
