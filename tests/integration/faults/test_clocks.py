"""Clocks a year ahead or behind, on either side: nothing waits for them to be right.

The machine's own clock stays as it is. libfaketime moves it for the programs that are
started with it, and for what those start.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from byteback.model.snapshot import format_snapshot_name, parse_snapshot_name
from tests.integration import conftest as machine
from tests.integration.faults.parts import HOST, start_sshd
from tests.integration.faults.test_cable import assert_done
from tests.integration.faults.test_signals import add_hook
from tests.integration.faults.trees import State, read_state
from tests.integration.faults.world import World, write_files
from tests.integration.programs import SEARCH_PATH, do_without, run_program

MEBI = 1 << 20
YEAR = timedelta(days=365)
AHEAD, BEHIND, RIGHT = YEAR, -YEAR, timedelta(0)
# What sees a jump in its middle, and goes on counting seconds meanwhile. Python cannot
# be among them: with libfaketime 0.9.10 its sleep and a steady clock do not agree.
CLOCKED = ("rsync", "ssh", "date")
AT_ONCE = {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
REFUSED = 14
FULL = ("--prune", "--minpercent", "99.99", "--maxpercent", "100")  # always short

either_way = pytest.mark.parametrize("wrong", [AHEAD, BEHIND], ids=["ahead", "behind"])


@dataclass
class Clock:
    """The clock of all programs that have its environment."""

    library: Path
    file: Path

    def set(self, offset: timedelta) -> None:
        """Let it differ from the real one."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{offset.total_seconds():+.0f}\n")
        new.chmod(0o644)
        new.replace(self.file)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "NO_FAKE_STAT": "1",  # files have the times that the kernel gave them
        }


def make_clock(side: str) -> Clock:
    libraries = list(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not libraries:
        do_without("libfaketime is not installed")
    clock = Clock(libraries[0], Path(f"/run/clock-{side}"))
    clock.set(RIGHT)
    return clock


@pytest.fixture
def server_clock(world: World) -> Iterator[Clock]:
    """The clock of whatever sshd starts. Snapshots are six hours apart, as usual."""
    clock = make_clock("server")
    settings = world.configuration / "server.toml"
    before = {path: path.read_text() for path in (settings, world.sshd_configuration)}
    words = " ".join(f"{name}={value}" for name, value in clock.environment.items())
    settings.write_text("")
    with world.sshd_configuration.open("a") as file:
        file.write(f"SetEnv {words}\n")
    restart_sshd(world)
    machine.CLOCK.unlink(missing_ok=True)
    prune(clock, "--prune")  # what set-up sees
    yield clock
    machine.CLOCK.unlink(missing_ok=True)
    for path, text in before.items():
        path.write_text(text)
    restart_sshd(world)


def restart_sshd(world: World) -> None:
    world.stop_sshd()
    world.sshd = start_sshd(world.sshd_configuration)


@pytest.fixture
def client_clock(world: World, with_constants: Callable[..., None]) -> Iterator[Clock]:
    """The clock of the client's rsync and ssh; a test may have byteback-backup join."""
    clock = make_clock("client")
    path = with_path_to_wrappers(clock)
    with_constants("system/process.py", SEARCH_PATH=repr(path))
    yield clock
    world.client_environment.clear()


def with_path_to_wrappers(clock: Clock) -> str:
    """A search path on which the client's programs come with the clock.

    The server's user, who has the same files here, cannot look there.
    """
    directory = clock.file.with_suffix(".bin")
    directory.mkdir(mode=0o700, exist_ok=True)
    settings = {**clock.environment, **AT_ONCE}
    words = " ".join(f"{name}={value}" for name, value in settings.items())
    for name in CLOCKED:
        wrapper = directory / name
        wrapper.write_text(f'#!/bin/sh\nexec env {words} /usr/bin/{name} "$@"\n')
        wrapper.chmod(0o755)
    return f"{directory}:{SEARCH_PATH}"


def back_up(world: World, content: str) -> tuple[str, State]:
    """Back up a new state of the source; its snapshot's name, and the state."""
    before = world.snapshots()
    (world.source / "file").write_text(content)
    world.backup()
    world.assert_nothing_left()
    (name,) = set(world.snapshots()) - set(before)
    assert read_state(world.current) == read_state(world.source)
    return name, read_state(world.source)


def is_of(name: str, time: datetime) -> bool:
    """True if a snapshot's name is of that time, or of shortly before."""
    moment = parse_snapshot_name(name)
    assert moment is not None
    return timedelta(0) <= time - moment < timedelta(hours=1)


def prune(clock: Clock, *options: str, expect: int = 0) -> list[str]:
    """Run byteback-prune on the server; the snapshots in the order that it names."""
    argv = ["nsenter", "--net=/run/netns/server", "byteback-prune", *options]
    shown = run_program(argv, env=clock.environment, check=False)
    assert shown.status == expect, shown
    if expect == REFUSED:
        assert "no snapshot is deleted: this machine's clock has jumped" in shown.stderr
    words = shown.stdout.split()
    return [word.partition("/")[2] for word in words if word.startswith(f"{HOST}/")]


def alarms(clock: Clock | None = None) -> set[str]:
    """The alarms that byteback-status on the server tells."""
    argv = ["nsenter", "--net=/run/netns/server", "byteback-status", "--json"]
    shown = run_program(argv, env=clock.environment if clock else None)
    return {alarm["kind"] for alarm in json.loads(shown.stdout)["alarms"]}


@either_way
def test_a_server_whose_clock_jumps_a_year_and_back(
    world: World, server_clock: Clock, wrong: timedelta
) -> None:
    first, first_state = back_up(world, "first")
    old = format_snapshot_name(datetime.now(UTC) - timedelta(days=10))
    (world.host / first).rename(world.host / old)

    server_clock.set(wrong)
    strange, strange_state = back_up(world, "strange")
    assert is_of(strange, datetime.now(UTC) + wrong)
    prune(server_clock, "--prune")  # there is room
    prune(server_clock, *FULL, expect=REFUSED)
    prune(server_clock, "--prune-force", expect=REFUSED)

    server_clock.set(RIGHT)
    newest, newest_state = back_up(world, "newest")
    assert is_of(newest, datetime.now(UTC))
    outcome = world.backup("--verbose")
    assert f"no new snapshot was due (newest: {newest})" in outcome.stderr
    states = {old: first_state, strange: strange_state, newest: newest_state}
    assert {n: read_state(world.copy_in(n)) for n in world.snapshots()} == states

    by_age = sorted(states, reverse=True)
    assert prune(server_clock, "--list", "--order", "age") == by_age
    prune(server_clock, "--prune")
    assert len(world.snapshots()) == 3
    # What is of the future was made a short while ago, or at least may have been.
    prune(server_clock, *FULL)
    assert set(world.snapshots()) == {newest} | ({strange} if wrong == AHEAD else set())


def test_a_clock_that_jumped_deletes_nothing_until_it_is_confirmed(
    world: World, server_clock: Clock
) -> None:
    """With it, what was made an hour ago is older than a week."""
    made = []
    for number, content in enumerate(("one", "two", "three")):
        made.append(back_up(world, content)[0])
        if number < 2:  # a few days old, and none a week
            (world.host / made[-1]).rename(world.host / days_ago(4 - number))
    machine.CLOCK.unlink()  # as on the day of an upgrade: the store alone tells
    server_clock.set(AHEAD)
    for options in (FULL, ("--prune-force",)):
        prune(server_clock, *options, expect=REFUSED)
    assert len(world.snapshots()) == len(made)
    assert {"server-clock", "no-room"} <= alarms(server_clock)
    prune(server_clock, *FULL, "--confirm-clock")
    assert "server-clock" not in alarms(server_clock)
    assert world.snapshots() == [made[-1]]
    # And back again, which is a jump, too.
    server_clock.set(RIGHT)
    prune(server_clock, "--prune-force", expect=REFUSED)
    prune(server_clock, "--prune-force", "--confirm-clock")
    assert world.snapshots() == []


def test_a_clock_that_goes_evenly_for_a_day_is_believed(
    world: World, server_clock: Clock, with_constants: Callable[..., None]
) -> None:
    back_up(world, "one")
    (world.host / world.snapshots()[0]).rename(world.host / days_ago(3))
    back_up(world, "two")
    prune(server_clock, "--prune")
    uptime = machine.CLOCK.with_name("uptime")
    seconds = float(Path("/proc/uptime").read_text().split()[0])
    with_constants("server/store/clock.py", UPTIME=f'Path("{uptime}")')
    for days, expect in ((0.0, REFUSED), (0.9, REFUSED), (1.1, 0)):
        uptime.write_text(f"{seconds + 86400 * days}\n")
        server_clock.set(AHEAD + timedelta(days=days))
        prune(server_clock, *FULL, expect=expect)
        assert len(world.snapshots()) == (2 if expect else 1)
    uptime.unlink()


def days_ago(number: int) -> str:
    return format_snapshot_name(datetime.now(UTC) - timedelta(days=number))


@either_way
def test_a_client_whose_clock_is_a_year_off(
    world: World, client_clock: Clock, wrong: timedelta
) -> None:
    told = world.source.parent / "told"
    add_hook(world, "pre-backup.d", f"date +%s >{told}")
    world.client_environment.update(client_clock.environment)
    client_clock.set(wrong)
    name, _ = back_up(world, "before")
    assert is_of(name, datetime.now(UTC))
    by_the_client = datetime.fromtimestamp(int(told.read_text()), UTC)
    assert abs(by_the_client - datetime.now(UTC) - wrong) < timedelta(hours=1)
    assert "clock" in alarms()
    client_clock.set(RIGHT)
    world.let_time_pass()
    back_up(world, "behind")  # as many bytes
    assert "clock" not in alarms()


def test_a_client_whose_clock_jumps_in_the_middle(
    world: World, client_clock: Clock
) -> None:
    write_files(world.source, [16 * MEBI])  # for six seconds
    world.slow("20mbit")
    running = world.start(retries=0)
    for offset in (AHEAD, BEHIND, RIGHT):
        world.wait_for_transfer(MEBI // 4)
        client_clock.set(offset)
    world.mend()
    outcome = running.finish()
    assert outcome.status == 0, outcome
    assert is_of(world.snapshots()[0], datetime.now(UTC))
    assert_done(world)
