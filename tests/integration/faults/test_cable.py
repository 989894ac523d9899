"""The cable is cut, blocked, slow and lossy; backups go on by themselves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import psutil
import pytest

from tests.integration.faults.parts import held_completion
from tests.integration.faults.trees import read_state
from tests.integration.faults.world import SESSION, Running, World, write_files
from tests.waiting import wait_until

MEBI = 1 << 20
# What a new connection, the names and the checksums of what is there cost.
OVERHEAD = 400_000
# Headers of Ethernet, IP, TCP and ssh on packets of 1500 bytes.
ON_THE_WIRE = 1.06
MANY = 20  # tries


@pytest.fixture
def impatient(with_constants: Callable[..., None]) -> None:
    """A dead line is noticed in seconds instead of two minutes."""
    times = {"CONNECT_TIMEOUT_S": 3, "ALIVE_INTERVAL_S": 1, "ALIVE_COUNT": 1}
    with_constants("system/ssh/openssh.py", **times)


@pytest.fixture
def trusting(with_constants: Callable[..., None]) -> None:
    """ssh itself does not notice a dead line while a test waits."""
    with_constants("system/ssh/openssh.py", ALIVE_INTERVAL_S=3600)


def start_and_stall(world: World, number: int, *arguments: str) -> tuple[Running, int]:
    """A backup that gets no more than so many bytes through; the bytes before it.

    It tries again more often than the mending of the line can take.
    """
    world.slow("80mbit")
    before = world.swallow_after(number)
    # Without a measurement of the line, which takes as many bytes as it likes.
    running = world.start("--compress=none", *arguments, retries=MANY)
    world.wait_until_sent(before + number - OVERHEAD)
    return running, before


def assert_done(world: World) -> None:
    """The newest snapshot, and current, are what the client has."""
    assert read_state(world.current) == read_state(world.source)
    assert read_state(world.copy_in(world.snapshots()[-1])) == read_state(world.source)
    world.assert_nothing_left()


def wait_until_line_is_given_up(world: World) -> None:
    """Wait until no ssh of the client is left: the pause before the next attempt."""
    wait_until(
        lambda: not world.processes("client", "ssh"), "the dead line was not noticed"
    )


def test_a_backup_over_a_sound_cable(world: World) -> None:
    write_files(world.source, [10, 100_000])
    outcome = world.backup()
    assert (outcome.stdout, outcome.stderr) == ("", "")
    assert_done(world)


@pytest.mark.parametrize("how", ["cut", "drop"])
def test_a_large_file_is_resumed_in_its_middle(
    world: World, impatient: None, how: str
) -> None:
    size = 12 * MEBI
    write_files(world.source, [size])
    running, before = start_and_stall(world, size * 2 // 3)
    world.cut() if how == "cut" else world.drop()
    wait_until_line_is_given_up(world)
    assert world.snapshots() == []
    world.mend()
    outcome = running.finish()
    assert outcome.status == 0, outcome
    assert_done(world)
    sent = world.bytes_sent() - before
    print(f"{how}: {sent:,} bytes on the wire for a file of {size:,}")
    assert sent < size * ON_THE_WIRE + 2 * MEBI + OVERHEAD


def test_a_changed_file_is_resumed_in_its_middle(world: World, impatient: None) -> None:
    size = 12 * MEBI
    write_files(world.source, [size])
    world.backup()
    inode = (world.current / "file-0").stat().st_ino
    # All of it changes but for its size; its old copy is overwritten in place.
    write_files(world.source, [size])
    world.let_time_pass()
    running, before = start_and_stall(world, size // 2)
    world.cut()
    wait_until_line_is_given_up(world)
    world.mend()
    outcome = running.finish()
    assert outcome.status == 0, outcome
    assert_done(world)
    assert (world.current / "file-0").stat().st_ino == inode
    sent = world.bytes_sent() - before
    print(f"in place: {sent:,} bytes on the wire for a file of {size:,}")
    assert sent < size * ON_THE_WIRE + 2 * MEBI + OVERHEAD


def test_a_server_that_cannot_be_reached(
    world: World, with_constants: Callable[..., None]
) -> None:
    with_constants("system/ssh/openssh.py", CONNECT_TIMEOUT_S=1)
    world.drop()
    outcome = world.backup(expect=12, retries=1, delay_s=0)
    assert outcome.stdout == ""
    lines = outcome.stderr.splitlines()
    assert lines[0] == (
        "byteback-backup: error: cannot reach 'byteback@backup.test:' "
        "(after 2 attempts)"
    )
    assert "timed out" in outcome.stderr
    world.assert_nothing_left()


def test_each_attempt_is_told_to_who_watches(world: World, impatient: None) -> None:
    world.cut()
    outcome = world.backup("--verbose", expect=12, retries=1)
    assert "attempt 1 of 2 failed: cannot reach 'byteback@backup.test:'" in (
        outcome.stderr
    )
    assert "; trying again in 1 seconds, at " in outcome.stderr


def test_a_connection_test_is_tried_again(world: World, impatient: None) -> None:
    write_files(world.source, [10])
    world.cut()
    running = world.start("--verbose", retries=MANY)
    running.wait_for_words(f"attempt 1 of {MANY + 1} failed")
    world.mend()
    assert running.finish().status == 0
    assert_done(world)


def test_a_completion_is_tried_again(world: World, impatient: None) -> None:
    write_files(world.source, [10])
    with held_completion():
        running = world.start(retries=MANY)
        world.wait_for("client", "--complete")
        world.cut()
        wait_until_line_is_given_up(world)
    world.mend()
    outcome = running.finish()
    assert outcome.status == 0, outcome
    assert len(world.snapshots()) == 1
    assert_done(world)


def test_an_attempt_makes_a_connection_of_its_own(world: World, trusting: None) -> None:
    # Only rsync's own time limit ends the attempt.
    size = 12 * MEBI
    write_files(world.source, [size])
    before = world.logins()
    running, _ = start_and_stall(world, size // 3, "--io-timeout=6")
    world.forget_connections()
    world.let_pass()
    outcome = running.finish()
    assert outcome.status == 0, outcome
    assert world.logins() == before + 2
    world.mend()
    # Its end of the old connection hears that it is dead when TCP tries it again.
    wait_until(lambda: not world.processes("server"), "the server waits for ever")
    assert_done(world)


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_server_whose_sshd_has_stopped(
    world: World, trusting: None, is_killed: bool
) -> None:
    size = 12 * MEBI
    write_files(world.source, [size])
    running, _ = start_and_stall(world, size // 3, "--verbose", "--io-timeout=6")
    stopped = world.processes("server", SESSION)
    assert stopped
    for process in stopped:
        process.suspend()
    world.let_pass()
    running.wait_for_words(f"attempt 1 of {MANY + 1} failed")
    if is_killed:
        for process in stopped:
            process.kill()
    outcome = running.finish()
    assert outcome.status == 0, outcome
    for process in stopped:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    assert_done(world)


def test_a_completion_makes_a_connection_of_its_own(
    world: World, trusting: None, with_constants: Callable[..., None]
) -> None:
    with_constants("client/transport/connection.py", REQUEST_TIMEOUT_S=5.0)
    write_files(world.source, [10])
    with held_completion():
        running = world.start(retries=MANY)
        world.wait_for("client", "--complete")
        world.forget_connections()
    outcome = running.finish()
    assert outcome.status == 0, outcome
    assert len(world.snapshots()) == 1
    world.mend()
    assert_done(world)


def test_a_slow_and_lossy_cable(world: World) -> None:
    write_files(world.source, [MEBI, 10_000, 10])
    world.slow("20mbit")
    world.drop(3)
    world.backup()
    assert_done(world)


def test_a_cable_that_comes_back_in_time_costs_nothing(world: World) -> None:
    size = 8 * MEBI
    write_files(world.source, [size])
    world.slow("80mbit")
    running = world.start(retries=0)
    before = world.wait_for_transfer(size // 2)
    world.cut()
    time.sleep(1)
    world.mend()
    assert running.finish().status == 0
    sent = world.bytes_sent() - before
    print(f"{sent:,} bytes on the wire for a file of {size:,}")
    assert sent < size * ON_THE_WIRE + MEBI + OVERHEAD
    assert_done(world)


def test_ipv6_alone(world: World) -> None:
    write_files(world.source, [10])
    known = world.configuration / "known_hosts"
    text = known.read_text()
    try:
        known.write_text(text + text.replace("backup.test", "fd00:200:1::1"))
        world.backup("--destination", "byteback@[fd00:200:1::1]:")
    finally:
        known.write_text(text)
    assert_done(world)


@pytest.mark.nightly  # four minutes
def test_a_dead_line_is_noticed_in_two_minutes(world: World) -> None:
    write_files(world.source, [8 * MEBI])
    world.slow("20mbit")
    running = world.start(retries=0)
    world.wait_for_transfer(MEBI)
    world.drop()
    started = time.monotonic()
    outcome = running.finish(600)
    assert outcome.status == 12, outcome
    assert 60 < time.monotonic() - started < 180
    assert world.snapshots() == []
