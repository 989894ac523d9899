"""Runs the server's rsync for one transfer: confined, measured, never two a client."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from byteback import locking, log
from byteback.errors import (
    BusyError,
    LockedError,
    NotSetUpError,
    PolicyError,
)
from byteback.server.store import places, presence
from byteback.server.store.layout import Store, lock_name, own_store
from byteback.server.store.presence import Condition
from byteback.server.store.settings import ServerSettings
from byteback.server.transfer.rsync_args import ServerCommand
from byteback.system import open_files, process, signals, watching
from byteback.system.confinement import sandbox
from byteback.system.rsync import options

BY_HAND = frozenset(
    {"byteback-clients", "byteback-prune", "byteback-replicate", "byteback-snapshot"}
)
TAKE_OVER_WAIT_S = 20.0
BUSY_RETRY_S = 300
WATCH_S = 2.0
MAX_TRANSFERS_OF_ONE = 4  # of one client: a push, one that takes over, two pulls
NICENESS = 10
MAX_OPEN_FILES = 1024
PROGRAM = "rsync"
OPTIONS_CACHE = "rsync-options"  # in the store's state
MIN_MEMORY = 2 << 30  # bytes of address space, on however small a machine


class Measured(NamedTuple):
    """How a transfer ended, and what the kernel counted for it."""

    status: int  # rsync's exit status, or minus a signal
    bytes_read: int | None = None  # from the wire and from the tree
    bytes_written: int | None = None  # to the disc, as far as it is known already
    confinement: str = "none"  # the layers that held it


def is_confined(settings: ServerSettings) -> bool:
    """True if transfers are confined by the kernel here, after the policy.

    Raises PolicyError where the policy requires it and the kernel cannot.
    """
    if settings.confinement == "off":
        return False
    if sandbox.is_available():
        return True
    if settings.confinement == "require":
        raise _cannot_confine()
    return False


def _cannot_confine() -> PolicyError:
    return PolicyError(
        "this server cannot confine transfers, and its policy requires it",
        hint="its administrator finds out why with byteback-setup-server",
    )


@contextlib.contextmanager
def slot(store: Store, settings: ServerSettings, client: str) -> Iterator[None]:
    """One of the server's places for transfers, and of the client's own.

    BusyError when all are taken. A client may read its backups while it makes one, but
    no client may fill the server's places with readings that never end: one is always
    left to others, but where there are two or less, for one that takes over needs two.
    """
    mine = min(MAX_TRANSFERS_OF_ONE, max(2, settings.max_transfers - 1))
    with (
        _slot(store, f"{lock_name(client)}.", mine, "of this machine"),
        _slot(store, "", settings.max_transfers, "already"),
    ):
        yield


def _slot(
    store: Store, prefix: str, count: int, whose: str
) -> contextlib.AbstractContextManager[None]:
    return places.take(
        store.state / "slots",
        prefix,
        count,
        f"the server is busy with {count} transfers {whose}",
        BUSY_RETRY_S,
        # Restores are served from a read-only store, too.
        lambda: presence.look(store) is Condition.READ_ONLY,
    )


@contextlib.contextmanager
def own_lock(store: Store, client: str) -> Iterator[locking.Lock]:
    """The host's lock, taken over from a transfer of the same host if need be.

    A client runs one backup at a time, so that an older transfer of the same client
    belongs to a connection that died unnoticed.
    """
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context(store.lock_host(client, wait_s=1.0))
        except LockedError:
            for pid in _holders(store.lock_path(client)):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGTERM)
            lock = _lock_after_take_over(store, client, stack)
        yield lock


def _lock_after_take_over(
    store: Store, client: str, stack: contextlib.ExitStack
) -> locking.Lock:
    try:
        return stack.enter_context(store.lock_host(client, wait_s=TAKE_OVER_WAIT_S))
    except LockedError:
        raise BusyError(
            "the server has not ended an older transfer of this machine yet",
            hint=f"try again in {BUSY_RETRY_S} seconds",
        ) from None


def run(
    command: ServerCommand,
    directory: Path,
    rights: int,
    settings: ServerSettings,
    lock: locking.Lock | None,
    watch: Callable[[int | None], bool] | None = None,
    log_fifo: Path | None = None,
    *,
    knows_names_first: bool = False,
) -> Measured:
    """Run the server's rsync in ``directory`` on the session's own descriptors.

    It gets ``rights`` (sandbox.READ or WRITE) on that directory and on nothing else
    of any client's. It inherits ``lock``, so that the lock is held for as long as any
    process of the transfer lives, whatever becomes of this one. ``watch`` is told
    every few seconds what it has written until then, and stops it by returning false,
    or by raising. rsync logs each change to ``log_fifo``; the caller must read it.
    ``knows_names_first`` is ServerCommand.finish's.
    """
    program = process.find_program(PROGRAM)
    if program is None:
        raise NotSetUpError(
            "the server has no rsync", hint="install rsync on the server"
        )
    place = Path(program).resolve()
    known = options.options(place, own_store().state / OPTIONS_CACHE)
    job = sandbox.Job(
        place,
        partial(command.finish, known=known, knows_names_first=knows_names_first),
        directory,
        rights,
        sandbox.Limits(NICENESS, MAX_OPEN_FILES, _memory_limit()),
        pass_fds=[*command.fds, *([lock.fd] if lock is not None else [])],
        fifo=log_fifo,
        helpers=command.helpers,
        output=command.output,
    )
    process.adopt_orphans()
    before = _io_counters()
    running, layers = _start(job, settings, reads_names=command.must_be_confined)
    status = -signal.SIGTERM
    try:
        while watch and not watching.has_ended(running.pid, WATCH_S):
            if not watch(watching.bytes_written(running.pid)):
                break
        else:
            status = running.wait()
    finally:
        # A client that takes its own transfer over now is to save no rsync from
        # SIGKILL that it has made deaf to SIGTERM.
        with signals.defer_signals():
            process.stop_group(running)
            process.reap_orphans()
    after = _io_counters()
    measured = Measured(status, after[0] - before[0], after[1] - before[1], layers)
    log.note(
        read=measured.bytes_read, written=measured.bytes_written, confinement=layers
    )
    return measured


def _start(
    job: sandbox.Job, settings: ServerSettings, *, reads_names: bool
) -> tuple[process.Process, str]:
    if settings.confinement == "off":
        running = sandbox.start_unconfined(job)
        return running.process, running.layers
    try:
        running = sandbox.start(job)
    except OSError as error:
        if error.errno is not None:  # a shortage: no reason to run it unconfined
            raise
        # is_confined has refused what cannot be had; this is what broke since. Names
        # inside the protocol are never read by an rsync that could go anywhere (D4).
        if settings.confinement == "require" or reads_names:
            raise _cannot_confine() from None
        running = sandbox.start_unconfined(job)
    return running.process, running.layers


def _memory_limit() -> int:
    """Bytes that one rsync may take: a client decides how long its file list is."""
    page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    return max(MIN_MEMORY, page * pages // 2)


def _io_counters() -> tuple[int, int]:
    """Bytes read and written by this process and the children it waited for.

    A child's counters join its parent's when it is waited for (proc_pid_io(5)); those
    of an ended child itself cannot be read by an ordinary user on newer kernels.
    """
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
        counters = dict(line.split(": ") for line in lines)
        return int(counters["rchar"]), int(counters["write_bytes"])
    except (OSError, ValueError, KeyError):
        return 0, 0


def _holders(lock_path: Path) -> list[int]:
    """Clients' sessions, but for this one, that have the lock's file open.

    An administrator may run pruning or a discard as the store's user, and a client
    that pushes again and again must not be able to end that.
    """
    found = open_files.holders({open_files.number_of(lock_path)})
    return [int(process.name) for process in found if not _is_by_hand(process)]


def _is_by_hand(process_directory: Path) -> bool:
    words = (process_directory / "cmdline").read_bytes().split(b"\0")[:4]
    return any(Path(os.fsdecode(word)).name in BY_HAND for word in words)
