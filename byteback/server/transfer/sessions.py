"""Transfers, from a parsed request to the ledger's last line about it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from functools import partial

from byteback import locking, log
from byteback.errors import BusyError, BytebackError, RefusedError
from byteback.model.growth import Taken
from byteback.server import limits as session_limits
from byteback.server.accounting import ledger
from byteback.server.snapshots import take
from byteback.server.store import (
    change_journal,
    machines,
    presence,
    settings,
    shortage,
    state,
    tree_token,
)
from byteback.server.store.layout import Store
from byteback.server.store.state import Transfer
from byteback.server.transfer import (
    attributes,
    durability,
    full_disc,
    hard_links,
    rsync_args,
    runner,
    space_guard,
)
from byteback.server.transfer.change_log import Changes
from byteback.server.transfer.durability import Disc
from byteback.system import signals
from byteback.system.confinement import sandbox
from byteback.wire import failures, requests

# rsync's exit statuses on the receiving side that mean that all was gone through.
_RESULTS = {0: Transfer.WHOLE, 24: Transfer.WHOLE, 23: Transfer.PARTIAL}
# A usage error, and incompatible protocols (rsync(1), EXIT VALUES): they do not pass.
_REFUSALS = frozenset({1, 2})
CLOCK_STEP_S = 60.0  # by how much a clock may be set back unnoticed


def push(store: Store, client: str, request: requests.Push, address: str) -> int:
    """Let the client's rsync write into ``current``; rsync's exit status."""
    limits = settings.load(client)
    command = rsync_args.build_push(request.words, limits.io_timeout_s)
    # Before it could end the transfer of another machine.
    machines.check(store, client, request.machine)
    with contextlib.ExitStack() as stack:
        stack.enter_context(runner.slot(store, limits, client))
        lock = stack.enter_context(runner.own_lock(store, client))
        take.ensure_current(store, client)
        if command.is_dry_run:
            current = store.current(client)
            measured = runner.run(command, current, sandbox.READ, limits, lock)
            return _exit_status(measured.status)
        journal = _read_base(store, client, command)
        machines.remember(store, client, request.machine)
        measured = receive(store, client, command, limits, lock, address, journal)
    return _exit_status(measured.status)


def receive(
    store: Store,
    client: str,
    command: rsync_args.ServerCommand,
    limits: settings.ServerSettings,
    lock: locking.Lock,
    address: str,
    journal: change_journal.Journal | None = None,
    guard: Callable[[], None] = lambda: None,
    results: Mapping[int, Transfer] = _RESULTS,
) -> runner.Measured:
    """Have an rsync write into ``current``, and record all about it.

    The caller holds the client's ``lock``, and has made sure that there is ``current``.
    ``address`` is for the ledger: where the backup comes from. ``guard`` is called
    every few seconds, and stops the transfer by raising. ``results`` says which of
    rsync's exit statuses stand for what; all others are failures.
    """
    with contextlib.ExitStack() as stack:
        disc = stack.enter_context(durability.watched(store, client))
        _make_sure_of_current(store, client, disc)
        # From here on until the end is known, current counts as no newest copy.
        state.write(store, client, Transfer.RUNNING)
        number = ledger.begin_transfer(
            store, client, address, "push", is_full=command.base is None
        )
        watched: space_guard.Watch | None = None
        result, measured = Transfer.FAILED, runner.Measured(status=-1)
        changes: Changes | None = None
        try:
            watched = space_guard.Watch(store, client, limits, number, guard)
            # Before the first byte: one that was stopped may come again at once.
            watched.look(0)
            measured, changes = _receive(store, client, command, limits, lock, watched)
            # Where it failed, too: it may have failed for that very reason.
            _separate(store, client, measured, changes)
            result = results.get(measured.status, Transfer.FAILED)
        finally:
            # A client that takes its own transfer over sends a signal at a moment of
            # its choice (D10): not in the middle of this, which says what it took.
            with signals.defer_signals():
                try:
                    _record(store, client, result, command.push, disc)
                    if result is Transfer.WHOLE:
                        _note_touched(store, client, journal, command, changes)
                except BytebackError:
                    result = Transfer.FAILED
                    raise
                finally:
                    _end_push(store, number, result, measured, watched)
        if result in (Transfer.FAILED, Transfer.PARTIAL):
            presence.check_writable(store)
            full_disc.check(store)
    return measured


def _receive(
    store: Store,
    client: str,
    command: rsync_args.ServerCommand,
    limits: settings.ServerSettings,
    lock: locking.Lock,
    watched: space_guard.Watch,
) -> tuple[runner.Measured, Changes | None]:
    """Run the rsync that writes, and see what it changes of several names.

    Not where this is no whole backup: it would not bring what is separated.
    """
    current = store.current(client)

    def look(written: int | None, changes: Changes | None = None) -> bool:
        watched.look(written)
        return changes is None or changes.may_go_on

    if not command.deletes:
        hard_links.forget(store, client)
        return runner.run(command, current, sandbox.WRITE, limits, lock, look), None
    with hard_links.heard(store, client) as changes:
        changes.on_damage = partial(attributes.note, store, client)
        if command.base is not None:
            changes.touched = set()
        measured = runner.run(
            command,
            current,
            sandbox.WRITE,
            limits,
            lock,
            partial(look, changes=changes),
            changes.fifo,
            knows_names_first=changes.is_second,
        )
    return measured, changes


def _note_touched(
    store: Store,
    client: str,
    journal: change_journal.Journal | None,
    command: rsync_args.ServerCommand,
    changes: Changes | None,
) -> None:
    """Note in which directories names came or went, for a client that keeps a record.

    After the end was recorded: the journal tells of that.
    """
    if command.push is None:
        return
    touched: Collection[str] | None = None
    if changes is not None:
        touched = changes.touched if changes.is_heard else None
    elif not command.deletes and "--existing" in command.words:
        # Where nothing is made and nothing deleted, no name comes or goes.
        touched = () if "--force" not in command.words else None
    change_journal.after_transfer(store, client, journal, touched)


def _read_base(
    store: Store, client: str, command: rsync_args.ServerCommand
) -> change_journal.Journal | None:
    """The journal that a partial transfer goes on with, if there is one.

    Raises RefusedError for changes of another tree than the one that is here.
    """
    if command.base is None:
        return None
    if tree_token.is_base(store, client, command.base):
        return change_journal.before_transfer(store, client)
    raise RefusedError(
        "the server has another tree than this client sent last",
        hint="everything has to be compared",
        reason=failures.Reason.STALE_TREE,
    )


def _make_sure_of_current(store: Store, client: str, disc: Disc) -> None:
    """See to it that what earlier transfers wrote is what ``current`` holds.

    Their end is unknown where "running" still stands: this machine went down in the
    middle, or only the program that would have recorded the end was killed.
    """
    since = state.crash_time(store, client)
    if since is not None:
        from byteback.server.transfer import recheck

        count = recheck.doubt_recent(store.current(client), since - CLOCK_STEP_S)
        log.audit("RECOVER", host=client, what="power cut in a transfer", files=count)
    attributes.mend(store, client)
    if state.read(store, client) is Transfer.RUNNING:
        disc.sync()


def _separate(
    store: Store,
    client: str,
    measured: runner.Measured,
    changes: Changes | None,
) -> None:
    """Have the client come again if ``current`` took several of its files for one.

    And if attributes were damaged, which the next transfer mends.

    Raises BusyError then.
    """
    if changes is None:
        return
    if changes.fifo and not changes.is_heard and measured.status in _RESULTS:
        log.audit("WARNING", host=client, what="rsync's log", reason="it was not heard")
    try:
        count = hard_links.separate(store, client, changes)
    except (OSError, OverflowError) as error:
        what = "the server could not tell the client's files apart"
        if isinstance(error, OSError):
            raise shortage.failure(f"{what}: {error.strerror}", error) from None
        raise BusyError(what, hint=str(error)) from None
    if count:
        log.audit("RECOVER", host=client, what="changed hard links", files=count)
        raise BusyError(
            "files with several names have changed, and are to be compared again",
            hint="try again at once",
            reason=failures.Reason.AT_ONCE,
        )
    if changes.is_damaged:
        raise attributes.come_again()


def pull(store: Store, client: str, request: requests.Pull, address: str) -> int:
    """Let the client's rsync read what it asked for; rsync's exit status."""
    limits = settings.load(client)
    if rsync_args.FILES_FROM in request.words:
        directory = store.host_directory(client) / exact_tree(
            store, client, request.snapshot
        )
        names = ["./"]
    else:
        from byteback.server.search import resolve

        directory = store.host_directory(client)
        whole = state.current_is_whole(store, client)
        names = resolve.resolve_apart(
            store, client, request, limits, current_is_whole=whole
        )
    command = rsync_args.build_pull(
        request.words,
        limits.io_timeout_s,
        names,
        is_confined=runner.is_confined(limits),
    )
    with contextlib.ExitStack() as stack:
        if address != session_limits.BY_ROOT:
            stack.enter_context(runner.slot(store, limits, client))
        number = ledger.begin_transfer(store, client, address, "pull")
        measured = runner.Measured(status=-1)
        try:
            measured = runner.run(command, directory, sandbox.READ, limits, None)
        finally:
            done = measured.status in _RESULTS
            _end(store, number, "whole" if done else "failed", measured)
    return _exit_status(measured.status)


def exact_tree(store: Store, client: str, name: str) -> str:
    """``name`` itself if it is one of the host's trees; RefusedError if not."""
    from byteback.errors import quote

    if name not in store.trees(client):
        raise RefusedError(
            f"there is no snapshot {quote(name)}",
            hint="byteback-restore --list shows what there is",
        )
    return name


def _record(
    store: Store, client: str, result: Transfer, push: str | None, disc: Disc
) -> None:
    """Record a transfer's end. What is recorded is on disc: no power cut undoes it.

    If that fails, "running" stands, which is never taken for finished. The client
    must hear of it then instead of a success: it will come back, and so end it.
    Raises StoreError if something did not reach the disc.
    """
    disc.sync()
    try:
        is_whole = result is Transfer.WHOLE
        mark = tree_token.make(store, client, push) if is_whole else ()
        state.write(store, client, result, mark)
    except BytebackError as error:
        log.audit("WARNING", host=client, what="transfer's end", reason=error.message)
        if result.is_finished:
            raise BusyError(
                "the server could not record the end of this transfer",
                hint=error.message,
                reason=error.reason,
            ) from None


def _end_push(
    store: Store,
    number: int | None,
    result: Transfer,
    measured: runner.Measured,
    watched: space_guard.Watch | None,
) -> None:
    _end(store, number, result.value, measured)
    if watched is None:  # it could not begin, and has taken nothing
        ledger.note_taken(store, number, Taken())
    else:
        watched.finish(measured.bytes_written)


def _end(
    store: Store, number: int | None, result: str, measured: runner.Measured
) -> None:
    end = ledger.TransferEnd(
        result, measured.status, measured.bytes_read, measured.bytes_written
    )
    ledger.end_transfer(store, number, end)


def _exit_status(status: int) -> int:
    """The session's exit status for rsync's.

    Raises RefusedError if rsync refused the client's: the client's rsync only sees that
    the connection ended, and would take it for a failure of the network.
    """
    if status in _REFUSALS:
        raise RefusedError(
            f"the server's rsync refused the transfer (rsync status {status})",
            hint="look into rsync_flags, and at the version of rsync on both sides",
            reason=failures.Reason.RSYNC_REFUSED,
        )
    return status if status >= 0 else 128 - status
