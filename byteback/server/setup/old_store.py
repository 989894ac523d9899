"""Takes over what the Ruby byteback left: snapshots, key lines, files, schedule."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TypeVar

from byteback.errors import quote
from byteback.server.access import authorized_keys
from byteback.server.setup import checks, schedule
from byteback.server.setup.steps import Kind, Outcome, StepRunner, found, warning
from byteback.server.store.layout import Store
from byteback.system import crontab
from byteback.system.btrfs import subvolume

LEFTOVERS = (".disk_free_history", ".byteback.pruning")
NAMES_SHOWN = 10

Result = TypeVar("Result")


def modernise(store: Store, runner: StepRunner) -> Iterator[Outcome]:
    """Make old snapshots read-only, and tell what is left for people to change."""
    yield from _freeze_snapshots(store, runner)
    yield from _look_at_keys(store)
    leftovers = [name for name in LEFTOVERS if os.path.lexists(store.root / name)]
    if leftovers:
        names = " and ".join(f"{store.root}/{name}" for name in leftovers)
        yield Outcome(Kind.NEXT, f"only the old tool used {names}: delete that")
    yield from _look_at_schedules()


def _freeze_snapshots(store: Store, runner: StepRunner) -> Iterator[Outcome]:
    """Snapshots by their names alone: what an administrator named is left alone."""
    failed: list[str] = []
    writable: list[tuple[str, str]] = []
    hosts = store.hosts()
    for client in hosts:
        writable += [
            (client, snapshot.name)
            for snapshot in store.snapshots(client)
            if _look(store, client, snapshot.name)
        ]
    if not writable:
        if hosts:
            yield found("no snapshot can be written to")
        return

    def freeze() -> None:
        for client, name in writable:
            try:
                _with_snapshot(store, client, name, subvolume.freeze)
            except OSError as error:
                failed.append(f"{quote(f'{client}/{name}')} ({error.strerror})")

    clients = len({client for client, _ in writable})
    yield runner.do(
        f"make {_count(len(writable), 'snapshot')} of {_count(clients, 'client')} "
        "read-only, which the old tool had left writable",
        freeze,
    )
    for name in failed:
        yield warning(f"the snapshot {name} is still writable")


def _look(store: Store, client: str, name: str) -> bool:
    with contextlib.suppress(OSError):  # pruned meanwhile, or no subvolume
        return not _with_snapshot(store, client, name, subvolume.is_read_only)
    return False


def _with_snapshot(
    store: Store, client: str, name: str, act: Callable[[int], Result]
) -> Result:
    """Act on a snapshot by its descriptor: the way there belongs to another user."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.ExitStack() as stack:
        fd = os.open(store.root, flags)
        stack.callback(os.close, fd)
        for part in (client, name):
            fd = os.open(part, flags, dir_fd=fd)
            stack.callback(os.close, fd)
        if os.fstat(fd).st_ino != subvolume.TOP_INODE:
            raise NotADirectoryError(20, "no subvolume", name)
        return act(fd)


def _look_at_keys(store: Store) -> Iterator[Outcome]:
    lines = authorized_keys.read(store).key_lines().values()
    hosts = sorted({x.host for x in lines if x.host and x.needs_environment})
    is_permitted = checks.permits_environment()
    if hosts:
        shown = ", ".join(hosts[:NAMES_SHOWN])
        more = len(hosts) - NAMES_SHOWN
        shown += f" and {more} more" if more > 0 else ""
        text = f"run byteback-setup-client again on {shown}: the old tool wrote "
        text += f"{'its line' if len(hosts) == 1 else 'their lines'} in authorized_keys"
        if not is_permitted:
            yield warning(
                f"{text}, which admit no client unless sshd has PermitUserEnvironment"
            )
            return
        yield Outcome(
            Kind.NEXT, f"{text}; after that, sshd needs no PermitUserEnvironment"
        )
    elif is_permitted:
        yield Outcome(
            Kind.NEXT,
            "byteback needs no PermitUserEnvironment in sshd's configuration any more: "
            "take it out, if nothing else needs it",
        )


def _look_at_schedules() -> Iterator[Outcome]:
    for path in crontab.files_that_run("byteback-prune"):
        if path != schedule.PRUNE.cron_file:
            yield warning(
                f"{quote(str(path))} runs byteback-prune, too: remove that line"
            )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
