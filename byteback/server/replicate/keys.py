"""Lets the keys of second servers in, on the first one, and takes them away."""

from __future__ import annotations

from pathlib import Path

from byteback import log
from byteback.errors import NotSetUpError, RefusedError, quote
from byteback.model.fleet import ClientKey, describe_key
from byteback.model.hostname import check_host_name, is_same_host
from byteback.model.key_line import KeyLine, format_replica_line
from byteback.model.public_key import PublicKey
from byteback.model.size import format_count
from byteback.server.access import authorized_keys
from byteback.server.replicate import serve
from byteback.server.store import holders
from byteback.server.store.layout import Store


def show(store: Store) -> dict[str, ClientKey]:
    """The key of each second server, by the server's name."""
    lines = authorized_keys.read(store).key_lines().values()
    return {line.replica: describe_key(line) for line in lines if line.replica}


def let_in(
    store: Store, name: str, key: PublicKey, program: Path, *, dry_run: bool
) -> list[str]:
    """Let ``key``, and no other one, read all snapshots as the second server ``name``.

    ``program`` is byteback-receive. Lines about what was done. Raises RefusedError for
    a key that opens the account for anything else.
    """
    check_host_name(name)
    line = format_replica_line(key, name, program)
    if dry_run:
        _check_is_free(name, key, authorized_keys.read(store).lines_of_key(key.blob))
        return [f"would let {key.fingerprint} read all snapshots as {name}"]
    with authorized_keys.editing(store) as key_file:
        _check_is_free(name, key, key_file.lines_of_key(key.blob))
        places = [at for at, x in key_file.key_lines().items() if _is_of(x, name)]
        if [key_file.lines[at] for at in places] != [line]:
            key_file.put(places, line)
    log.audit("ENROL", replica=name, key=key.fingerprint)
    return [f"{name} can read all snapshots, with the key {key.fingerprint}"]


def revoke(store: Store, name: str, *, dry_run: bool) -> list[str]:
    """Take a second server's key away, and end its sessions, transfers included.

    Lines about what was done. Raises NotSetUpError if there is none.
    """
    known = next((one for one in show(store) if is_same_host(one, name)), None)
    if known is None:
        raise NotSetUpError(
            f"no second server is called {quote(name)}",
            hint="byteback-clients replica shows them all",
        )
    if dry_run:
        return [f"would take away the key of {known}, and end its sessions"]
    with authorized_keys.editing(store) as key_file:
        own = key_file.key_lines().items()
        key_file.drop([at for at, line in own if _is_of(line, known)])
    log.audit("REVOKE", replica=known)
    lines = [f"took away the key of {known}"]
    count = holders.end(serve.place_paths(store, known))
    if count:
        lines.append(f"ended {format_count(count, 'session')} of {known}")
    return lines


def _is_of(line: KeyLine, name: str) -> bool:
    return line.replica is not None and is_same_host(line.replica, name)


def _check_is_free(name: str, key: PublicKey, own: dict[int, KeyLine]) -> None:
    for line in own.values():
        if not _is_of(line, name):
            use = "for something else"
            if line.host or line.replica:
                use = f"as {quote(line.host or line.replica or '')}"
            raise RefusedError(
                f"key {key.fingerprint} already opens this account {use}",
                hint="the second server makes a key of its own: byteback-replicate "
                "--set-up there",
            )
