"""Kills a change of a client before any of its steps."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from typing import Any

from byteback.server.accounting import ledger_clients
from byteback.server.fleet import finish
from byteback.server.prune import limits
from byteback.server.prune import run as prune
from byteback.server.store import opening
from byteback.server.store.layout import Store
from byteback.system import files, process
from byteback.system.btrfs import subvolume

# All that a change does to the disc goes through one of these.
STEPS: tuple[tuple[Any, str], ...] = (
    (os, "unlink"),
    (os, "rename"),
    (os, "replace"),
    (os, "rmdir"),
    (os, "setxattr"),
    (os, "fsync"),
    (files, "rename_to_free"),
    (subvolume, "thaw"),
    (subvolume, "freeze"),
    (process, "run"),
    (ledger_clients, "forget"),
    (ledger_clients, "rename"),
)
DONE, KILLED = 0, -signal.SIGKILL


def run_until(step: int, action: Callable[[Store], object]) -> int:
    """Do ``action`` to the store in a process that is killed at a step; how it ended.

    Before the step, which is after the one before it.
    """

    def work() -> None:
        _kill_at(step)
        with opening.opened_store(writes=True) as store, finish.locked(store):
            action(store)

    return in_child(work)


def go_on() -> int:
    """What the next run of byteback-clients does first."""

    def work() -> None:
        with opening.opened_store(writes=True) as store, finish.locked(store):
            pass

    return in_child(work)


def tick() -> int:
    """What root's pruning does every few minutes, without the deletions."""

    def work() -> None:
        with opening.opened_store(writes=True) as store:
            prune.Pruner(store).prune(limits.choose_limits(1, 2))

    return in_child(work)


def in_child(work: Callable[[], None]) -> int:
    """Do something in a process of its own; its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = DONE
        except BaseException:  # noqa: BLE001 # shown by pytest with the failure
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _kill_at(step: int) -> None:
    left = step

    def count() -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    def killing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **options: Any) -> Any:
            count()
            return real(*words, **options)

        return call

    for module, name in STEPS:
        setattr(module, name, killing(getattr(module, name)))
