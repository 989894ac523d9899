"""Serves a second server: the forced command of its key on the first one.

It reads all clients' finished snapshots, takes over the clients that root moves to it,
and nothing else. The request is whatever the
holder of that key sends, and rsync runs as confined as for a restore (D6).
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from byteback import log
from byteback.errors import RefusedError, quote
from byteback.model.hostname import is_host_name, is_same_host
from byteback.model.replication import Offer, OfferedSnapshot
from byteback.model.snapshot import snapshot_names
from byteback.server import limits
from byteback.server.accounting import ledger
from byteback.server.replicate import changed
from byteback.server.session.dispatch import client_address
from byteback.server.store import change, move_note, places, presence, settings, tree
from byteback.server.store.layout import Store, lock_name, own_store
from byteback.server.transfer import rsync_args, runner, sessions
from byteback.system import files
from byteback.system.btrfs import subvolume
from byteback.system.confinement import sandbox
from byteback.wire import replication

MAX_SESSIONS = 4  # at once, of all second servers
RETRY_S = 60
MARK = b"--replica "  # stands before the name in a line of authorized_keys


def serve(name: str, command: bytes) -> int:
    """Serve one request of the second server ``name``; the session's exit status.

    Raises a BytebackError for what is refused or fails.
    """
    started = time.monotonic()
    log.note(replica=name, address=client_address())
    try:
        status = _serve(name, command)
    finally:
        log.note(seconds=f"{time.monotonic() - started:.1f}")
    log.audit_end("ACCEPT", exit=status)
    return status


def _serve(name: str, command: bytes) -> int:
    if not is_host_name(name):
        raise RefusedError(f"{quote(name)} cannot be a server's name")
    request = replication.parse_request(command)
    log.note(request=type(request).__name__.lower())
    store = own_store()
    presence.check_mounted(store)
    with contextlib.ExitStack() as stack:
        for prefix, words in _places(name):
            stack.enter_context(
                places.take(_directory(store), prefix, MAX_SESSIONS, words, RETRY_S)
            )
        # After: else a key's taking away could overlook this session.
        _check_key(store, name)
        match request:
            case replication.ListAll():
                with limits.time_limit():
                    _list(store, name)
                return 0
            case replication.Fetch():
                log.note(host=request.client, snapshot=request.snapshot)
                return _send(store, request)
            case _:
                from byteback.server.replicate import handing_over

                with limits.time_limit():
                    for line in handing_over.serve(store, name, request):
                        _write(line)
                    sys.stdout.flush()
                return 0


def _check_key(store: Store, name: str) -> None:
    """Raise RefusedError if the key was taken away since the connection began.

    sshd looks at authorized_keys once for each connection, and serves any number of
    sessions on it later (D48).
    """
    from byteback.model.key_line import parse_key_line

    with contextlib.suppress(OSError):
        fd = files.open_regular(store.authorized_keys)
        with os.fdopen(fd, "rb") as file:
            for line in file:
                if MARK in line:
                    found = parse_key_line(line)
                    if found is not None and found.replica == name:
                        return
    raise RefusedError(f"the key of {quote(name)} was taken away")


def place_paths(store: Store, name: str) -> list[Path]:
    """The lock files of all places for sessions of the second server ``name``."""
    prefix = _prefix(name)
    return places.paths(_directory(store), prefix, MAX_SESSIONS)


def _places(name: str) -> Iterator[tuple[str, str]]:
    """The places of this second server, and of all together; none are a client's.

    Each as the beginning of its locks' names, and what is said when all are taken.
    """
    yield _prefix(name), f"{quote(name)} has {MAX_SESSIONS} sessions open here already"
    all_taken = f"{MAX_SESSIONS} sessions of other servers are open here already"
    yield "+replica.", all_taken


def _prefix(name: str) -> str:
    # No host's name has a plus.
    return f"{lock_name(name.lower())}+replica."


def _directory(store: Store) -> Path:
    return store.state / "sessions"


def _list(store: Store, name: str) -> None:
    _write(replication.format_header())
    count = 0
    for client in store.hosts():
        moved = move_note.read(store, client)
        is_gone = moved is not None and moved.state == move_note.MOVED
        if moved is not None and is_gone and is_same_host(moved.server, name):
            continue  # it is that server's own client now
        try:
            offer = _offer(store, client)
        except OSError:  # taken away, or renamed, while we look
            continue
        _write(replication.format_offer(offer))
        count += 1
    _write(replication.format_end(count))
    sys.stdout.flush()


def _offer(store: Store, client: str) -> Offer:
    incomplete = ledger.incomplete_snapshots(store, client)
    directory = store.host_directory(client)
    dated = store.dated(client, snapshot_names(store.trees(client)))
    names = [one.name for one in dated]
    found = ((name, _token(directory / name)) for name in names)
    return Offer(
        client,
        tuple(
            OfferedSnapshot(name, token, name in incomplete)
            for name, token in found
            if token is not None
        ),
    )


def _token(path: Path) -> str | None:
    """The uuid of a snapshot, which stays when it is sealed; None: it is gone.

    Empty for a plain directory: btrfs has none for it.
    """
    fd = tree.open_root(path)
    if fd is None:
        return None
    try:
        if os.fstat(fd).st_ino != subvolume.TOP_INODE:
            return ""
        found = subvolume.read(fd)
    finally:
        os.close(fd)
    return "" if found is None else found.uuid.hex()


def _send(store: Store, request: replication.Fetch) -> int:
    client = request.client
    if not store.is_client(client):
        raise RefusedError(f"there is no client {quote(client)}")
    change.check(client)
    common = settings.load(client)
    sessions.exact_tree(store, client, request.snapshot)
    command = rsync_args.build_whole_pull(request.words, common.io_timeout_s)
    if not runner.is_confined(common):
        raise RefusedError(
            "this server cannot confine what reads for another server",
            hint="install bubblewrap here, or use a kernel with Landlock",
        )
    directory = store.host_directory(client) / request.snapshot
    # Never the last of the server's places, if there is more than one.
    most = max(1, common.max_transfers - 1)
    busy = f"the server is busy with {most} transfers already"
    with places.take(store.state / "slots", "", most, busy, RETRY_S):
        if request.base is not None:
            if not _has(store, client, request.base):
                changed.tell_everything()
                return 0
            base = request.base.name
            changed.tell(store, client, request.snapshot, base, common)
        measured = runner.run(command, directory, sandbox.READ, common, None)
    return measured.status if measured.status >= 0 else 128 - measured.status


def _has(store: Store, client: str, snapshot: OfferedSnapshot) -> bool:
    """True if the snapshot is here still, and is the same one."""
    if snapshot.name not in store.trees(client):
        return False
    known = _token(store.host_directory(client) / snapshot.name)
    return known is not None and snapshot.token in ("", known)


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
