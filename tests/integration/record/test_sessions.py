"""A few small changes are sent without asking the server first; all else after that."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from byteback.client.backup.acquaintance import MAX_BYTES
from byteback.server import limits
from byteback.server.store import places
from byteback.server.store.layout import lock_name
from byteback.server.transfer import runner
from tests.integration.conftest import SshServer
from tests.integration.counting import accepted, sessions_in
from tests.integration.record.test_backups import SOURCE, World, alter_record, sent
from tests.integration.record.test_backups import old_world as old_world  # noqa: PLC0414
from tests.integration.record.test_backups import world as world  # noqa: PLC0414
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.integration

FEW, ALL = 2, 3  # the transfer and its completion; a ping before them


def sessions_of(world: World, sshd: SshServer, *words: str) -> int:
    """The number of sessions, over one connection, of a backup of changes alone."""
    sessions, connections = sessions_in(sshd.log), accepted()
    assert sent(world.back_up(*words)) is not None
    assert accepted() - connections == 1
    assert not world.differences()
    return sessions_in(sshd.log) - sessions


def test_few_changes_take_two_sessions(old_world: World, sshd: SshServer) -> None:
    world = old_world
    assert sessions_of(world, sshd) == FEW
    (SOURCE / "a").write_text("changed")
    assert sessions_of(world, sshd) == FEW
    (SOURCE / "large").write_bytes(bytes(MAX_BYTES + 1))
    assert sessions_of(world, sshd) == ALL, "the line is measured for that"
    (SOURCE / "large").unlink()
    assert sessions_of(world, sshd, "--compress", "none") == ALL, "another choice"
    assert sessions_of(world, sshd, "--compress", "none") == FEW
    alter_record(server={"way": 1, "host": [], "compresses": "x"})
    assert sessions_of(world, sshd, "--compress", "none") == ALL, "not readable"
    hook = world.client.configuration / "pre-backup.d" / "hook"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o755)
    try:
        assert sessions_of(world, sshd, "--compress", "none") == ALL, "a hook"
    finally:
        hook.unlink()


def session_places(world: World) -> list[Path]:
    """The places for sessions of the client: without one it has no answer to a ping."""
    return limits.place_paths(world.store, world.client.host)


def transfer_places(world: World) -> list[Path]:
    """The places for its transfers."""
    prefix = f"{lock_name(world.client.host)}."
    count = runner.MAX_TRANSFERS_OF_ONE
    return places.paths(world.store.state / "slots", prefix, count)


@pytest.mark.parametrize("busy", [session_places, transfer_places])
def test_a_busy_server_is_asked_until_it_serves(
    old_world: World, busy: Callable[[World], list[Path]]
) -> None:
    """Nothing more than the changes is sent to it then: that would be more work."""
    (SOURCE / "a").write_text("changed")
    said: list[str] = []
    with contextlib.ExitStack() as stack:
        for path in busy(old_world):
            stack.enter_context(taken(path, old_world.client.user.uid))
        words = old_world.command("-r", "9", "-e", "1")
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as running:
            assert running.stderr is not None
            for line in running.stderr:
                said.append(line)
                if "attempt 2 of 10 failed" in line:
                    stack.close()
            running.wait(PATIENCE_S)
    text = "".join(said)
    assert running.returncode == 0, text
    assert "asking the server first" in text
    assert "everything is compared" not in text
    assert not old_world.differences()


@contextlib.contextmanager
def taken(path: Path, uid: int) -> Iterator[None]:
    """One of the server's places, held by another."""
    with path.open("a") as file:
        os.chown(path, uid, -1)
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
