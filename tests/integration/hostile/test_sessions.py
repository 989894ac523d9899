"""Attacks by sessions that are many, never end, or die at the wrong moment."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from byteback.server.limits import MAX_SEARCHES, MAX_SESSIONS
from byteback.server.transfer.runner import MAX_TRANSFERS_OF_ONE
from byteback.server.transfer.space_guard import WORTH_A_SYNC
from byteback.wire.probe import BLOCK, MAX_BLOCKS
from tests.integration.conftest import (
    CHECKOUT,
    free_port,
    wait_for_port,
    write_sshd_configuration,
)
from tests.integration.hostile.processes import (
    flood,
    forced_commands,
    processes,
    wait_for,
)
from tests.integration.hostile.world import (
    HONEST,
    HOST,
    VICTIM,
    World,
    has_control_characters,
)
from tests.integration.programs import SEARCH_PATH, require_program, run_program
from tests.waiting import PATIENCE_S


def test_sessions_that_never_end_do_not_pile_up(world: World) -> None:
    """Each waits for something that never comes: patterns, or a peer's first byte."""
    search = [*world.ssh_words(), "--", "byteback-receive --find"]
    with flood(search, 2 * MAX_SEARCHES) as sessions:
        wait_for(lambda: sum(s.poll() is not None for s in sessions) == MAX_SEARCHES)
        assert world.ssh("byteback-receive --ping").status == 0
    wait_for(lambda: not forced_commands())
    push = [*world.ssh_words(), "--", "rsync --server -lre.LsfxC . ."]
    with flood(push, 2 * MAX_SESSIONS):
        # Those that came too many look around, are told so, and end.
        wait_for(lambda: len(forced_commands()) >= MAX_TRANSFERS_OF_ONE)
        wait_for(lambda: len(forced_commands()) <= MAX_SESSIONS)
        assert ping_as(VICTIM) == 0, "another client is kept out"
    wait_for(lambda: not forced_commands())
    world.check_honest_use()


def test_a_probe_takes_so_much_and_no_more(world: World) -> None:
    command = "byteback-receive --ping --json --probe"
    heard = world.ssh(command, stdin=bytes(3 * BLOCK))
    assert (heard.status, heard.stdout.partition(b"\n")[2]) == (0, b"...")
    heard = world.ssh(command, stdin=bytes((MAX_BLOCKS + 40) * BLOCK))
    assert heard.status == 9
    assert heard.stdout.partition(b"\n")[2] == b"." * MAX_BLOCKS
    assert b"a probe has at most" in heard.stderr
    wait_for(lambda: not forced_commands())
    world.check_honest_use()


def test_what_the_readme_says_ends_idle_connections(
    world: World, tmp_path: Path
) -> None:
    """Connections without a session are none of ours; those with one stay."""
    lines = (CHECKOUT / "README.md").read_text().partition("    Match User byteback\n")
    advice = "Match User byteback\n" + lines[2].partition("\n\n")[0]
    assert "UnusedConnectionTimeout 2m" in advice
    key = tmp_path / "host_key"
    run_program(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    port, program = free_port(), require_program("sshd")
    configuration, log = tmp_path / "sshd_config", tmp_path / "log"
    write_sshd_configuration(program, configuration, key, port)
    with configuration.open("a") as file:
        file.write(advice.replace("2m", "2s") + "\n")
    if run_program([program, "-t", "-f", configuration], check=False).status != 0:
        pytest.skip("this sshd has no UnusedConnectionTimeout: OpenSSH 9.2 brought it")
    with subprocess.Popen([program, "-D", "-f", configuration, "-E", log]) as server:
        try:
            wait_for_port(port, server, log)
            there = replace(world, port=port)
            known = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=none")
            words = there.ssh_words(*known)
            search = [*words, "--", "byteback-receive --find"]
            with flood(search, 1) as (busy,), flood([*words, "-N"], 3) as idle:
                wait_for(lambda: all(one.poll() is not None for one in idle))
                assert busy.poll() is None
        finally:
            server.terminate()


def test_a_client_has_its_share_of_sessions_and_no_more(world: World) -> None:
    assert world.ssh("byteback-receive --ping").status == 0
    with contextlib.ExitStack() as stack:
        for number in range(MAX_SESSIONS):
            place = world.store / ".byteback" / "sessions" / f"{HOST}.{number}.lock"
            stack.enter_context(hold_file(place, world))
        heard = world.ssh("byteback-receive --ping")
        assert heard.status == 75
        assert b"busy: " in heard.stderr
        assert b"try again in" in heard.stderr
        assert ping_as(VICTIM) == 0, "another client is kept out"
    world.check_honest_use()


def test_transfers_that_never_end_do_not_take_all_places(world: World) -> None:
    raw = "byteback-restore --snapshot current --server --sender -lre.LsfxC . /etc"
    with flood([*world.ssh_words(), "--", raw], 8) as sessions:
        # Some are refused; those that are not may take longer to begin.
        wait_for(lambda: sum(s.poll() is not None for s in sessions) >= 4)
        wait_for(lambda: len(transfers()) >= MAX_TRANSFERS_OF_ONE)
        assert len(transfers()) == MAX_TRANSFERS_OF_ONE
        assert ping_as(VICTIM) == 0
    wait_for(lambda: not transfers())
    world.check_honest_use()


def test_a_dead_push_is_taken_over(world: World) -> None:
    """A line that died unnoticed: the client comes back and is served."""
    raw = "rsync --server -lre.LsfxC --timeout=600 . ."
    with flood([*world.ssh_words(), "--", raw], 1) as (dead,):
        wait_for(transfers)
        os.kill(dead.pid, signal.SIGSTOP)
        world.check_honest_use()
        os.kill(dead.pid, signal.SIGCONT)
    world.check_honest_use()


def test_a_take_over_hides_nothing_that_was_taken(world: World) -> None:
    """Growth is judged by it (D16), and a client can make the disc slow."""
    source = world.workshop / "large"
    source.mkdir()
    (source / "large").write_bytes(os.urandom(WORTH_A_SYNC + (1 << 20)))
    state = world.store / ".byteback" / "hosts" / f"{HOST}.state"
    world.check_honest_use()
    before = len(data_taken(world))
    with slow_btrfs("*sync*"), pushing(world, source):
        wait_for(lambda: state.read_text().startswith("running"))
        wait_for(lambda: state.read_text().startswith("whole"))
        again = [*world.ssh_words(), "--", "rsync --server -lre.LsfxC . ."]
        with flood(again, 1):
            wait_for(lambda: state.read_text().startswith("running"))
    wait_for(lambda: not forced_commands())
    taken = data_taken(world)[before:]
    assert None not in taken
    assert sum(map(int, filter(None, taken))) >= WORTH_A_SYNC
    world.check_honest_use()


def test_a_killed_session_leaves_no_process(world: World) -> None:
    raw = "rsync --server -lre.LsfxC . ."
    with flood([*world.ssh_words(), "--", raw], 1):
        wait_for(transfers)
        for process in forced_commands():
            process.kill()
        wait_for(lambda: not transfers())
    world.check_honest_use()


def test_snapshots_are_not_made_in_floods(world: World) -> None:
    """The first one is due; it is taken away again for the sake of the others."""
    before = {path.name for path in world.own.iterdir()}
    world.check_honest_use()
    for _ in range(3):
        assert world.ssh("byteback-receive --complete", *world.shared).status == 0
        world.ssh("byteback-snapshot --snapshot", *world.shared)
    made = [path for path in world.own.iterdir() if path.name not in before]
    assert len(made) == 1
    subprocess.run(
        ["btrfs", "subvolume", "delete", *made], check=True, capture_output=True
    )


def test_what_lies_in_the_tree_cannot_hold_a_listing_up(world: World) -> None:
    """As if a client had got there without --fake-super."""
    current = world.own / "current"
    evil = current / "trap"
    evil.mkdir()
    os.mkfifo(evil / "fifo")
    os.mknod(evil / "zero", 0o020666, os.makedev(1, 5))
    (evil / "out").symlink_to(world.victim / "current" / "etc")
    (evil / "link").write_bytes(b"")
    os.truncate(evil / "link", 3 << 30)
    os.setxattr(evil / "link", "user.rsync.%stat", b"120777 0,0 0:0")
    (evil / "esc\x1b]0;evil\x07ape").touch()
    try:
        started = time.monotonic()
        for pattern in ("/trap/*", "/trap/out/*", "/trap/**/*", "/**/secret"):
            request = f"byteback-receive --snapshot * --list --verbose {pattern}"
            heard = world.ssh(request, *world.shared)
            assert heard.status == 0, heard
            assert not has_control_characters(heard.stdout)
            assert VICTIM not in heard.stdout.decode() or "->" in heard.stdout.decode()
            found = world.ssh(
                "byteback-receive --find", *world.shared, stdin=pattern.encode() + b"\0"
            )
            assert found.status == 0, found
            for line in found.stdout.splitlines():
                assert "/out/" not in json.loads(line).get("path", "")
        heard = world.rsync(
            "byteback-restore --snapshot current --server --sender -lre.LsfxC . "
            "/trap/out/secret",
            *("-rl", "--trust-sender", "h:x", "loot/"),
        )
        assert b"nothing in the backups matches" in heard.stderr
        assert time.monotonic() - started < PATIENCE_S
    finally:
        subprocess.run(["rm", "-rf", evil], check=True)
    world.check(heard)


@contextmanager
def pushing(world: World, source: Path) -> Iterator[None]:
    """The client's rsync while it sends a directory."""
    raw = f"rsync --fake-super --server {HONEST} . ."
    words = ["-a", "--numeric-ids", "--inplace", f"{source}/", "h:x"]
    with subprocess.Popen(
        ["rsync", "-e", str(world.remote_shell()), *words],
        env={"PATH": SEARCH_PATH, "RAW": raw},
        stderr=subprocess.DEVNULL,
    ) as client:
        try:
            yield
        finally:
            client.kill()


@contextmanager
def slow_btrfs(calls: str) -> Iterator[None]:
    """Make btrfs-progs take seconds for the calls that a shell's pattern matches."""
    stand_in = Path("/usr/local/sbin/btrfs")
    real = require_program("btrfs")
    stand_in.write_text(
        f'#!/bin/sh\ncase "$*" in {calls}) sleep 2 ;; esac\nexec {real} "$@"\n'
    )
    stand_in.chmod(0o755)
    try:
        yield
    finally:
        stand_in.unlink()


def transfers() -> list[psutil.Process]:
    """The rsyncs of the byteback user."""
    return [process for process in processes() if process.info["name"] == "rsync"]


def data_taken(world: World) -> list[int | None]:
    """The ledger's line of each of the client's pushes."""
    place = world.store / ".byteback" / "ledger.sqlite"
    query = "SELECT data_taken FROM transfer WHERE host = ? AND kind = 'push'"
    with contextlib.closing(sqlite3.connect(place)) as ledger:
        return [taken for (taken,) in ledger.execute(query, (HOST,))]


@contextmanager
def hold_file(path: Path, world: World) -> Iterator[None]:
    """Hold a lock as another session of the client would."""
    with path.open("a") as file:
        os.chown(path, world.user.uid, world.user.gid)
        path.chmod(0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def ping_as(host: str) -> int:
    """Another client's forced command, as sshd would run it."""
    environment = ["SSH_ORIGINAL_COMMAND=byteback-receive --ping"]
    argv = ["runuser", "-u", "byteback", "--", "env", *environment]
    program = ["/usr/local/bin/byteback-receive", "--host", host]
    return subprocess.run([*argv, *program], check=False).returncode
