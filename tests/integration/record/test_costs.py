"""An unchanged backup costs the server the same, however many files there are.

Counted are the system calls by which files and directories are looked at, of all that
the server runs for the backup and of the pruning after it.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from contextlib import closing

import pytest

from tests.integration.conftest import SshServer
from tests.integration.counting import Trace, seldom_watched, traced, traced_server
from tests.integration.programs import do_without, require_program, run_program
from tests.integration.record.test_backups import SOURCE, SURE_S, World, sent
from tests.integration.record.test_backups import world as world  # noqa: PLC0414

pytestmark = pytest.mark.integration

FILES = 400
IN_EACH = 20
LOOKS = {
    *("openat", "newfstatat", "fstat", "statx", "getdents64", "readlink"),
    *("getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr"),
}
SLACK = 40  # Python's own reading differs a little from run to run


def make_files(first: int, last: int) -> None:
    """Small files, so many in each directory."""
    for number in range(first, last):
        directory = SOURCE / f"{number // IN_EACH:04}"
        directory.mkdir(exist_ok=True)
        (directory / f"file-{number}").write_text("contents")


def make_due(world: World) -> None:
    """Date all snapshots into the past, on disc and in the ledger."""
    store, host = world.store, world.client.host
    with closing(sqlite3.connect(store.state / "ledger.sqlite")) as ledger, ledger:
        for number, snapshot in enumerate(store.snapshots(host)):
            name = f"2001-01-{number + 1:02}T00:00+0000"
            path = store.host_directory(host) / snapshot.name
            path.rename(path.with_name(name))
            ledger.execute(
                "UPDATE snapshot SET name = ? WHERE host = ? AND name = ?",
                (name, host, snapshot.name),
            )


def prune(world: World) -> list[str]:
    """The pruning that the server's schedule starts every few minutes."""
    return [str(world.client.bin / "byteback-prune"), "--prune"]


def settle(world: World) -> None:
    """A day later: the record knows everything, and a snapshot is due."""
    time.sleep(SURE_S)
    make_due(world)
    world.back_up()
    make_due(world)
    run_program(prune(world))


def looks_of_a_backup(world: World, sshd: SshServer) -> Counter[str]:
    """What an unchanged backup looks at, by program."""
    snapshots = len(world.store.snapshots(world.client.host))
    with traced_server(sshd) as server:
        assert sent(world.back_up()) is not None
    assert len(world.store.snapshots(world.client.host)) == snapshots + 1
    with traced(prune(world)) as (words, pruning):
        run_program(words)
    looks = looks_in(server)
    looks["pruning"] = looks_in(pruning).total()
    return looks


def looks_in(trace: Trace) -> Counter[str]:
    """The calls that look at files, by program."""
    looks: Counter[str] = Counter()
    for program, calls in trace.processes:
        looks[program] += sum(call in LOOKS for call in calls)
    return looks


def test_an_unchanged_backup_costs_the_server_the_same(
    world: World, sshd: SshServer
) -> None:
    require_program("strace")
    if run_program(["strace", "-o", "/dev/null", "true"], check=False).status != 0:
        do_without("no program can be traced here")
    with seldom_watched():
        make_files(0, FILES)
        assert sent(world.back_up()) is None
        settle(world)
        few = looks_of_a_backup(world, sshd)
        make_files(FILES, 4 * FILES)
        settle(world)
        many = looks_of_a_backup(world, sshd)
    for program in few | many:
        assert abs(many[program] - few[program]) <= SLACK, (program, few, many)
