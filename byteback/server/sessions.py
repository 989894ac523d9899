"""Transfers, from a parsed request to the ledger's last line about it."""

from __future__ import annotations

from byteback import log
from byteback.errors import BytebackError
from byteback.server import (
    host_state,
    ledger,
    rsync_options,
    settings,
    snapshots,
    transfer,
)
from byteback.server.host_state import Transfer
from byteback.server.store import Store
from byteback.tools import btrfs, sandbox
from byteback.wire import requests

# rsync's exit statuses on the receiving side that mean that all was gone through.
_RESULTS = {0: Transfer.WHOLE, 24: Transfer.WHOLE, 23: Transfer.PARTIAL}


def push(store: Store, host: str, request: requests.Push, address: str) -> int:
    """Let the client's rsync write into ``current``; rsync's exit status."""
    limits = settings.load(host)
    command = rsync_options.build_push(request.words, limits.io_timeout_s)
    with transfer.slot(store, limits), transfer.own_lock(store, host) as lock:
        snapshots.ensure_current(store, host)
        if command.is_dry_run:
            return transfer.run(
                command.argv, store.current(host), sandbox.READ, limits, lock
            ).status
        # From here on until the end is known, current is nobody's newest copy.
        host_state.write(store, host, Transfer.RUNNING)
        number = ledger.begin_transfer(store, host, address, "push")
        result = Transfer.FAILED
        measured = transfer.Measured(status=-1)
        try:
            measured = transfer.run(
                command.argv, store.current(host), sandbox.WRITE, limits, lock
            )
            result = _RESULTS.get(measured.status, Transfer.FAILED)
            if result.is_finished:
                # What the client will be told is done must survive a power cut.
                btrfs.sync(store.current(host))
        finally:
            _record(store, host, result, number, measured)
    return _exit_status(measured.status)


def pull(store: Store, host: str, request: requests.Pull, address: str) -> int:
    """Let the client's rsync read what it asked for; rsync's exit status."""
    limits = settings.load(host)
    if rsync_options.FILES_FROM in request.words:
        directory = store.host_directory(host) / exact_tree(
            store, host, request.snapshot
        )
        names = ["./"]
    else:
        from byteback.server import search

        directory = store.host_directory(host)
        whole = host_state.current_is_whole(store, host)
        names = search.resolve(store, host, request, current_is_whole=whole)
    command = rsync_options.build_pull(
        request.words,
        limits.io_timeout_s,
        names,
        is_confined=transfer.is_confined(limits),
    )
    with transfer.slot(store, limits):
        number = ledger.begin_transfer(store, host, address, "pull")
        measured = transfer.Measured(status=-1)
        try:
            measured = transfer.run(command.argv, directory, sandbox.READ, limits, None)
        finally:
            done = measured.status in _RESULTS
            _end(store, number, "whole" if done else "failed", measured)
    return _exit_status(measured.status)


def exact_tree(store: Store, host: str, name: str) -> str:
    """``name`` itself if it is one of the host's trees; RefusedError if not."""
    from byteback.errors import RefusedError, quote

    if name not in store.trees(host):
        raise RefusedError(
            f"there is no snapshot {quote(name)}",
            hint="byteback-restore --list shows what there is",
        )
    return name


def _record(
    store: Store,
    host: str,
    result: Transfer,
    number: int | None,
    measured: transfer.Measured,
) -> None:
    try:
        host_state.write(store, host, result)
    except BytebackError as error:
        # It still says "running", which is never taken for finished.
        log.audit("WARNING", host=host, what="transfer's end", reason=error.message)
    _end(store, number, result.value, measured)


def _end(
    store: Store, number: int | None, result: str, measured: transfer.Measured
) -> None:
    end = ledger.TransferEnd(
        result, measured.status, measured.bytes_read, measured.bytes_written
    )
    ledger.end_transfer(store, number, end)


def _exit_status(status: int) -> int:
    return status if status >= 0 else 128 - status
