"""Serves one request of a client: the forced command of every client's key.

The request is whatever the holder of that key cares to send, so that nothing of it is
used before it has been parsed into a typed value. What only some requests need is
imported when they come: most sessions are over before Python has loaded much.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

from byteback import __version__, log
from byteback.errors import (
    DISC_FAILURES,
    BusyError,
    BytebackError,
    InterruptedBySignalError,
    LockedError,
    NotSetUpError,
    PolicyError,
    RefusedError,
    StoreError,
    StoreUnavailableError,
    ToolError,
    escape,
    quote,
)
from byteback.model.hostname import is_host_name
from byteback.server import limits
from byteback.server.store import (
    change,
    key_change,
    move_note,
    presence,
    replica_note,
    retirement,
    shortage,
    state,
)
from byteback.server.store.layout import Store, own_store
from byteback.wire import replies, requests
from byteback.wire.failures import Reason

ROOTS_REQUESTS = (requests.Ping, requests.Find, requests.Pull)
READING = (requests.Find, requests.List, requests.Pull)
FLUSH_S = 0.2  # how long what was found may wait for more


def serve(client: str, command: bytes, *, by_root: bool = False) -> int:
    """Serve one request for ``client`` and return the session's exit status.

    ``command`` is SSH_ORIGINAL_COMMAND as sshd gave it, or with ``by_root`` the words
    of root on this machine, who may read the backups of a retired client too (D54).
    Raises a BytebackError for what is refused or fails; what of it the client may
    read, for_client says.
    """
    address = limits.BY_ROOT if by_root else client_address()
    started = time.monotonic()
    log.note(host=client, address=address, key=_fingerprint())
    try:
        status = _serve(client, command, address, by_root=by_root)
    except MemoryError:
        raise RefusedError(
            "the request needs too much memory", hint="ask for less at once"
        ) from None
    finally:
        log.note(seconds=f"{time.monotonic() - started:.1f}")
    log.audit_end("ACCEPT", exit=status)
    return status


def _serve(client: str, command: bytes, address: str, *, by_root: bool) -> int:
    if not is_host_name(client):
        raise NotSetUpError(
            f"{quote(client)} in authorized_keys cannot be a client's name",
            hint="run byteback-setup-client on that machine again",
        )
    request = requests.parse_request(command)
    log.note(request=type(request).__name__.lower())
    if by_root and not isinstance(request, ROOTS_REQUESTS):
        raise RefusedError("root on the server can list and restore, and no more")
    store = own_store()
    if isinstance(request, requests.Push | requests.Complete | requests.Claim):
        replica_note.check(store, client)
    check = presence.check_writable if _writes(request) else presence.check_mounted
    check(store)
    check_client = change.check if by_root else partial(_check_client, store, request)
    check_client(client)
    if not store.host_directory(client).is_dir():
        raise NotSetUpError(
            f"the server has no directory for {quote(client)}",
            hint="run byteback-setup-client on that machine again",
        )
    place = limits.root_place if by_root else limits.place
    with place(store, client), contextlib.ExitStack() as stack:
        # Once more: a change of the client has all places from its beginning to its
        # end, so that nothing changes any more from here on.
        check_client(client)
        if not isinstance(request, requests.Push | requests.Pull):
            stack.enter_context(limits.time_limit())
        with _explained(store, partial(check, store)):
            status = _dispatch(store, client, request, address)
        # Within the time limit: a client may choose not to read.
        sys.stdout.flush()
    return status


def _check_client(store: Store, request: requests.Request, client: str) -> None:
    """Raise BusyError or RefusedError for a client that is to come later, or not.

    One that was moved to another server restores from here until it is removed.
    """
    change.check(client)
    key_change.check(store, client)
    if not isinstance(request, READING):
        move_note.check(store, client)
    retirement.check(store, client)


def _writes(request: requests.Request) -> bool:
    return isinstance(request, requests.Push | requests.Complete)


@contextlib.contextmanager
def _explained(store: Store, check: Callable[[], None]) -> Iterator[None]:
    """Raise StoreError, as ``check`` does, for what fails because of the store.

    The failing program itself may know no more than that a file could not be made. A
    want of room is told with what becomes of it.
    """
    try:
        yield
    except (RefusedError, PolicyError, InterruptedBySignalError):
        raise
    except (BytebackError, OSError) as error:
        check()
        if not shortage.is_meant_by(error):
            raise
        from byteback.server.transfer import full_disc

        raise full_disc.told(store, error) from error


def for_client(error: BytebackError) -> BytebackError:
    """``error`` as the client may read it: without the server's paths and commands.

    Refusals and the like speak of what the client asked. Whatever else goes wrong is
    the server's own affair, and its log has the whole of it.
    """
    if isinstance(error, StoreError):
        return _store_error_for_client(error)
    if isinstance(error, RefusedError | BusyError | PolicyError | NotSetUpError):
        return error
    is_ended = isinstance(error, ToolError) and (error.status or 0) < 0
    if is_ended or error.retryable:
        # The program was ended, in a shutdown, say; or there was want of memory.
        return BusyError("the server was interrupted", hint="try again")
    if isinstance(error, LockedError):
        kind: type[BytebackError] = LockedError
        message = "another session of this machine is at work on the server"
        hint = "try again when it has ended"
    else:
        kind = type(error) if isinstance(error, ToolError) else BytebackError
        message = "the server could not do this"
        hint = "its administrator finds the reason in its system log"
    public = kind(message, hint)
    public.exit_status = error.exit_status
    return public


def trouble_for_client(error: Exception) -> BytebackError:
    """The client's words for an exception that means trouble with the machine."""
    if isinstance(error, OSError) and error.errno in DISC_FAILURES:
        return for_client(StoreError(str(error), reason=Reason.STORE_FAILED))
    return BusyError("the server is short of something")


def _store_error_for_client(error: StoreError) -> BytebackError:
    """The client's words for a store that only the administrator can mend."""
    message = "the server's store is not there: its disc is not mounted"
    if error.reason == Reason.STORE_FAILED:
        message = "the server's store cannot be written to: its disc may have failed"
    return StoreUnavailableError(
        message,
        hint="its administrator has to see to that; there is nothing to do here, and "
        "the next backup goes on by itself",
        reason=error.reason,
    )


def _dispatch(
    store: Store, client: str, request: requests.Request, address: str
) -> int:
    match request:
        case requests.Ping():
            if request.json:
                _reply(_hello(store, client))
            if request.json and request.probe:
                from byteback.server.session import line_probe

                sys.stdout.flush()
                line_probe.acknowledge_blocks(sys.stdin.buffer, sys.stdout.buffer)
            return 0
        case requests.Claim():
            from byteback.server.store import machines

            _reply(
                replies.Claimed(client, machines.claim(store, client, request.machine))
            )
            return 0
        case requests.Complete():
            return _complete(store, client, request)
        case requests.Find():
            with limits.search_place(store, client, address):
                return _find(store, client, request)
        case requests.List():
            with limits.search_place(store, client, address):
                return _list(store, client, request)
        case requests.Push():
            from byteback.server.transfer import sessions

            return sessions.push(store, client, request, address)
        case requests.Pull():
            from byteback.server.transfer import sessions

            return sessions.pull(store, client, request, address)


def _hello(store: Store, client: str) -> replies.Hello:
    from byteback.server.store import coverage, tree_token

    # New lines name the host in the command, see byteback-receive.
    is_old_line = "BYTEBACK_HOST" in os.environ
    tree = tree_token.token(store, client)
    return replies.Hello(
        *(__version__, replies.PROTOCOL, client),
        is_old_line=is_old_line,
        tree=tree,
        machines=True,
        details=True,
        sources=coverage.read(store, client),
    )


def _complete(store: Store, client: str, request: requests.Complete) -> int:
    from byteback.server.snapshots import take
    from byteback.server.store import coverage, settings, tree_token

    if request.missed is not None:
        _note_missed(store, client, request.missed)
    if request.clock is not None:
        _note_clock(store, client, request.clock)
    if not state.read(store, client).is_cut_off:
        coverage.note(store, client, request.sources)
    name: str | None = None
    # No failure: an old client would take any other status than 0 for one.
    with contextlib.suppress(PolicyError):
        name = take.take_snapshot(
            store,
            client,
            settings.load(client),
            incomplete=request.incomplete,
            files=request.files,
            size=request.size,
        )
    if request.json:
        newest = name or take.newest_name(store, client)
        # A client that does not say what it sent is told of no tree.
        tree = tree_token.token(store, client, push=request.push or "none")
        _reply(replies.Completion(snapshot=name, newest=newest, tree=tree))
    return 0


def _note_missed(store: Store, client: str, count: int) -> None:
    """Keep what a full comparison found, for byteback-status to tell of (D40)."""
    from byteback.server.accounting import own_word

    own_word.note_missed(store, client, count)
    if count:
        what = "changes that the client's record had missed"
        log.audit("ERROR", host=client, what=what, names=count)


def _note_clock(store: Store, client: str, clock: int) -> None:
    """Keep how a client's clock differs, for byteback-status to tell of."""
    from byteback.server.accounting import own_word

    own_word.note_clock(store, client, clock - round(time.time()))


def _find(store: Store, client: str, request: requests.Find) -> int:
    from byteback.model import difference, listing
    from byteback.server.accounting import ledger
    from byteback.server.search import run

    whole = state.current_is_whole(store, client)
    trees = set(store.trees(client))
    incomplete = ledger.incomplete_snapshots(store, client) & trees
    bounded = _bounded(store, client, trees)
    chains, index = run.read_history(store, client)
    _confine_search(store, client)
    patterns = run.read_patterns(sys.stdin.buffer)
    found = 0
    if request.scope == "size":
        size = run.total_size(
            store, client, request.snapshot, patterns, current_is_whole=whole
        )
        _reply(replies.End(0, whole, tuple(sorted(incomplete)), size, bounded))
        return 0
    if request.sample is not None:
        patterns = run.sample(
            *(store, client, request.snapshot, patterns, request.sample),
            current_is_whole=whole,
            chains=chains,
        )
    if request.since is None:
        entries = run.find(
            *(store, client, request.snapshot, request.scope, patterns),
            current_is_whole=whole,
            chains=chains,
            index=index,
        )
        lines = map(listing.format_json, entries)
    else:
        changes = run.changes(
            *(store, client, request.snapshot, request.since, patterns),
            current_is_whole=whole,
            chains=chains,
        )
        lines = map(difference.format_difference, changes)
    flushed = 0.0
    for line in lines:
        _write(line)
        found += 1
        now = time.monotonic()
        if now - flushed > FLUSH_S:
            sys.stdout.buffer.flush()
            flushed = now
    _reply(replies.End(found, whole, tuple(sorted(incomplete)), None, bounded))
    return 0


def _bounded(
    store: Store, client: str, trees: Collection[str]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Those of a client's trees that hold less than another one, and what they hold."""
    from byteback.model.coverage import MORE, SHOWN, narrower
    from byteback.model.snapshot import CURRENT
    from byteback.server.accounting import snapshot_sources
    from byteback.server.store import coverage

    known = dict(snapshot_sources.read(store, client))
    found = {name: sources for (_, name), sources in known.items() if name in trees}
    current = coverage.read(store, client)
    if current is not None:
        found[CURRENT] = current
    return tuple(
        (
            name,
            found[name] if len(found[name]) <= SHOWN else (*found[name][:SHOWN], MORE),
        )
        for name in narrower(found)
    )


def _list(store: Store, client: str, request: requests.List) -> int:
    from byteback.model import listing
    from byteback.server.search import run

    if not request.patterns:
        raise RefusedError("no pattern was given", hint="name the files to list")
    scope = "versions" if request.every_version else "newest"
    whole = state.current_is_whole(store, client)
    chains, index = run.read_history(store, client)
    _confine_search(store, client)
    entries = run.find(
        store,
        client,
        request.snapshot,
        "copies" if request.verbose else scope,
        request.patterns,
        current_is_whole=whole,
        chains=chains,
        index=index,
    )
    found = list(entries)
    for line in listing.format_table(found) if found else _nothing(request.patterns):
        _write(line)
    return 0


def _nothing(patterns: Sequence[str]) -> list[str]:
    """The words of the Ruby tool's server, which its client shows as they come."""
    words = ["** Sorry.  There were no files matching:"]
    return [*words, *(f"--> {escape(pattern)}" for pattern in patterns)]


def _confine_search(store: Store, client: str) -> None:
    from byteback.server.store import settings

    limits.confine_search(store.host_directory(client), settings.load(client))


def original_command() -> bytes:
    """The command that the client asked sshd to run."""
    return os.environb.get(b"SSH_ORIGINAL_COMMAND", b"")


def client_address() -> str:
    """The client's address, as sshd saw it."""
    return os.environ.get("SSH_CONNECTION", "").partition(" ")[0]


def _fingerprint() -> str | None:
    """The key's, as ssh-keygen -l shows it, where sshd has ExposeAuthInfo."""
    place = os.environ.get("SSH_USER_AUTH")
    if place is None:
        return None
    import base64
    import hashlib

    try:
        words = Path(place).read_bytes()[:16384].split()  # publickey TYPE BASE64
        digest = hashlib.sha256(base64.b64decode(words[2])).digest()
    except (OSError, IndexError, ValueError):
        return None
    return "SHA256:" + base64.b64encode(digest).rstrip(b"=").decode("ascii")


def _reply(
    reply: replies.Hello | replies.Claimed | replies.Completion | replies.End,
) -> None:
    _write(replies.format_reply(reply))


def _write(line: str) -> None:
    # Names may hold any byte, and the locale here may be any too.
    sys.stdout.buffer.write(line.encode("utf-8", "surrogateescape") + b"\n")
