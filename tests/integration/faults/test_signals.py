"""Whoever stops a backup stops all of it; whatever is killed, the next run goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.integration.faults.parts import held_completion
from tests.integration.faults.trees import read_state
from tests.integration.faults.world import RUN, SESSION, Running, World, write_files
from tests.waiting import wait_until

MEBI = 1 << 20
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def add_hook(world: World, directory: str, script: str, name: str = "hook") -> None:
    path = world.configuration / directory / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def add_witness(world: World) -> Path:
    """A finally-hook that writes down what it was told, and if the client sends."""
    told = world.source.parent / "told"
    told.unlink(missing_ok=True)
    add_hook(
        world,
        "finally-backup.d",
        "{ env | grep ^BYTEBACK_; count=0\n"
        "for comm in $(grep -lsx rsync /proc/[0-9]*/comm); do\n"
        "[ ${comm%comm}ns/net -ef /proc/self/ns/net ] && count=$((count + 1))\n"
        f"done; echo $count rsync; }} >{told}",
    )
    return told


def start_transfer(world: World) -> Running:
    """A backup in the middle of its transfer, for ten seconds at least."""
    write_files(world.source, [16 * MEBI])
    world.slow("10mbit")
    running = world.start(delay_s=0)
    world.wait_for_transfer(MEBI // 4)
    return running


def assert_stopped(
    world: World, running: Running, number: signal.Signals, told: Path
) -> None:
    outcome = running.finish()
    assert outcome.status == 128 + number, outcome
    world.assert_nothing_left()
    words = told.read_text().split("\n")
    assert "BYTEBACK_RESULT=interrupted" in words
    assert f"BYTEBACK_EXIT_STATUS={128 + number}" in words
    assert "0 rsync" in words
    assert world.snapshots() == []
    # Nothing that was stopped is in the way of the next run.
    world.mend()
    for directory in ("pre-backup.d", "post-backup.d"):
        for hook in (world.configuration / directory).glob("*"):
            hook.unlink()
    world.backup(retries=0)
    assert read_state(world.current) == read_state(world.source)
    world.assert_nothing_left()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_in_the_transfer(world: World, number: signal.Signals) -> None:
    told = add_witness(world)
    running = start_transfer(world)
    os.kill(running.pid, number)
    assert_stopped(world, running, number, told)


def test_control_c_reaches_the_whole_terminal(world: World) -> None:
    told = add_witness(world)
    running = start_transfer(world)
    os.killpg(running.pid, signal.SIGINT)
    assert_stopped(world, running, signal.SIGINT, told)


def test_an_impatient_user_cannot_keep_it_from_cleaning_up(world: World) -> None:
    told = add_witness(world)
    running = start_transfer(world)
    for _ in range(3):
        os.kill(running.pid, signal.SIGTERM)
        time.sleep(0.02)
    assert_stopped(world, running, signal.SIGTERM, told)


def test_a_signal_in_the_pause_before_a_retry(world: World) -> None:
    told = add_witness(world)
    world.cut()
    running = world.start("--verbose", delay_s=300)
    running.wait_for_words("attempt 1 of 4 failed")
    os.kill(running.pid, signal.SIGTERM)
    assert_stopped(world, running, signal.SIGTERM, told)


@pytest.mark.parametrize("directory", ["pre-backup.d", "post-backup.d"])
def test_a_signal_while_a_hook_runs(world: World, directory: str) -> None:
    told = add_witness(world)
    write_files(world.source, [10])
    add_hook(world, directory, "sleep 300 & wait")
    running = world.start()
    hook = world.wait_for("client", "sleep 300")
    os.kill(running.pid, signal.SIGTERM)
    outcome = running.finish()
    assert outcome.status == 128 + signal.SIGTERM
    # Who is to collect the dead may get its turn later.
    wait_until(lambda: not Path("/proc", str(hook)).exists())
    assert "BYTEBACK_RESULT=interrupted" in told.read_text()
    world.assert_nothing_left()


def test_a_second_signal_stops_a_hanging_finally_hook(world: World) -> None:
    add_hook(world, "finally-backup.d", "sleep 300")
    running = start_transfer(world)
    os.kill(running.pid, signal.SIGTERM)
    world.wait_for("client", "sleep 300")
    os.kill(running.pid, signal.SIGINT)
    assert running.finish().status in (130, 143)
    world.assert_nothing_left()


def test_nohup_is_respected(world: World) -> None:
    write_files(world.source, [8 * MEBI])
    world.slow("40mbit")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        running = world.start()
    finally:
        signal.signal(signal.SIGHUP, before)
    world.wait_for_transfer(MEBI)
    os.kill(running.pid, signal.SIGHUP)
    world.mend()
    assert running.finish().status == 0


def test_a_killed_run_leaves_nothing_running_and_nothing_locked(world: World) -> None:
    running = start_transfer(world)
    os.kill(running.pid, signal.SIGKILL)
    running.finish()
    # rsync dies with its parent, before its work is done; the idle connection is the
    # next run's to end.
    wait_until(lambda: not world.processes("client", "rsync --archive"))
    assert read_state(world.current) != read_state(world.source)
    assert len(list(RUN.glob("ssh-*"))) == 1
    world.mend()
    world.backup(retries=0)
    assert read_state(world.current) == read_state(world.source)
    world.assert_nothing_left()


def test_a_connection_whose_user_was_killed_ends_by_itself(
    world: World, with_constants: Callable[..., None]
) -> None:
    with_constants("system/ssh/openssh.py", PERSIST_S=1)
    running = start_transfer(world)
    os.kill(running.pid, signal.SIGKILL)
    running.finish()
    world.mend()
    wait_until(lambda: not (world.processes("client") or world.processes("server")))


def test_a_second_run_is_told_who_holds_the_lock(world: World) -> None:
    add_hook(world, "pre-backup.d", "sleep 300 || true")
    told = add_witness(world)
    first = world.start()
    hook = world.wait_for("client", "sleep 300")
    second = world.backup(expect=11)
    assert second.stderr.startswith(
        "byteback-backup: error: cannot lock '/run/byteback/backup.lock': "
        f"held by pid {first.pid} (byteback-backup, since 20"
    )
    assert not told.exists(), "the second run disturbed what is the first one's"
    write_files(world.source, [10])
    os.kill(hook, signal.SIGTERM)
    assert first.finish().status == 0


def test_nobody_else_can_put_the_lock_there_before_us(world: World) -> None:
    elsewhere = world.source.parent / "victim"
    elsewhere.write_text("precious")
    RUN.mkdir(mode=0o700)
    (RUN / "backup.lock").symlink_to(elsewhere)
    outcome = world.backup(expect=1)
    assert "cannot use '/run/byteback/backup.lock': " in outcome.stderr
    assert elsewhere.read_text() == "precious"
    (RUN / "backup.lock").unlink()
    RUN.chmod(0o777)
    outcome = world.backup(expect=1)
    assert "other users can write to it" in outcome.stderr


@pytest.mark.parametrize(
    ("side", "name"),
    [
        ("client", "rsync --archive"),
        ("client", "[mux]"),
        ("server", "byteback-receive --host"),
        ("server", "=rsync"),
        ("server", SESSION),
    ],
)
def test_whatever_is_killed_in_the_transfer_it_goes_on(
    world: World, side: str, name: str
) -> None:
    running = start_transfer(world)
    os.kill(world.wait_for(side, name), signal.SIGKILL)
    world.mend()
    outcome = running.finish()
    assert outcome.status == 0, outcome
    assert read_state(world.current) == read_state(world.source)
    assert read_state(world.copy_in(world.snapshots()[0])) == read_state(world.source)
    world.assert_nothing_left()


@pytest.mark.parametrize("side", ["client", "server"])
def test_an_rsync_that_is_told_to_end_is_started_again(world: World, side: str) -> None:
    # As in a shutdown of the server; rsync's status is 20 then, as after Ctrl-C.
    running = start_transfer(world)
    for process in world.processes(side, "=rsync"):
        with contextlib.suppress(
            psutil.NoSuchProcess
        ):  # the others' end may be its own
            process.terminate()
    world.mend()
    outcome = running.finish()
    assert outcome.status == 0, outcome
    assert read_state(world.current) == read_state(world.source)
    world.assert_nothing_left()


def test_a_completion_that_is_killed_is_asked_for_again(world: World) -> None:
    write_files(world.source, [10])
    with held_completion():
        running = world.start(delay_s=0)
        world.wait_for("client", "--complete")
        os.kill(world.wait_for("server", "byteback-receive --host"), signal.SIGKILL)
    outcome = running.finish()
    assert outcome.status == 0, outcome
    assert len(world.snapshots()) == 1
    world.assert_nothing_left()


def test_a_transfer_that_hangs_is_taken_over_by_the_next_one(world: World) -> None:
    running = start_transfer(world)
    # Stopped, it holds the client's lock and takes no notice of anything but SIGKILL.
    hanging = world.processes("server", "=rsync")
    assert hanging
    for process in hanging:
        process.suspend()
    os.kill(running.pid, signal.SIGKILL)
    running.finish()
    world.mend()
    world.backup(retries=4)
    assert read_state(world.current) == read_state(world.source)
    world.assert_nothing_left()
