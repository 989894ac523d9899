"""The server loses its power: what it had not written is gone, and is sent again."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration import conftest as machine
from tests.integration.faults.parts import held_completion
from tests.integration.faults.trees import State, change_at_random, read_state
from tests.integration.faults.world import World, build_world, write_files
from tests.integration.programs import run_program

SEED = 20261123
CUTS = 5
OFTEN = 1000  # tries without a pause, while the server starts again
BOOT_ID = Path("/run/boot_id")


@pytest.fixture(scope="module")
def powered_world(installed: Path) -> Iterator[World]:
    """Two machines; the server's disc can be frozen at any moment."""
    outer = Path("/srv/outer")
    image = Path("/var/tmp/outer.img")
    outer.mkdir()
    with contextlib.ExitStack() as stack:
        stack.callback(outer.rmdir)
        with image.open("wb") as file:
            file.truncate(12 << 30)
        stack.callback(image.unlink)
        run_program(["mkfs.btrfs", "--quiet", image])
        run_program(["mount", "-o", "loop", image, outer])
        stack.callback(machine.unmount, outer)
        yield stack.enter_context(build_world(installed, outer))


@pytest.fixture
def server(powered_world: World, with_constants: Callable[..., None]) -> World:
    """The same, as good as new, on its first start."""
    with_constants("server/store/state.py", BOOT_ID=f'Path("{BOOT_ID}")')
    start_again(1)
    powered_world.reset()
    # On disc: else a power cut could bring back what the last test left.
    run_program(["btrfs", "filesystem", "sync", powered_world.store])
    return powered_world


def start_again(number: int) -> None:
    BOOT_ID.write_text(f"{number:08}-0000-0000-0000-000000000000\n")


def cut_power(world: World, number: int) -> None:
    world.cut_power()
    start_again(number)


def test_files_written_in_place_are_not_half_old_for_ever(server: World) -> None:
    sizes = [200_000] * 24
    write_files(server.source, sizes)
    server.backup()
    server.let_time_pass()
    # The same sizes again: only times tell the new files from the old ones.
    write_files(server.source, sizes)
    server.slow("20mbit")
    running = server.start(retries=OFTEN, delay_s=0)
    server.wait_for_transfer(3_600_000)
    cut_power(server, 2)
    server.mend()
    outcome = running.finish()
    assert outcome.status == 0, outcome
    assert read_state(server.current) == read_state(server.source)
    assert len(server.snapshots()) == 2
    server.assert_nothing_left()


def test_between_the_end_of_rsync_and_the_snapshot(server: World) -> None:
    write_files(server.source, [200_000] * 5)
    with held_completion():
        running = server.start(retries=OFTEN, delay_s=0)
        server.wait_for("client", "--complete")
        cut_power(server, 2)
    outcome = running.finish()
    assert outcome.status == 0, outcome
    assert len(server.snapshots()) == 1
    assert read_state(server.copy_in(server.snapshots()[0])) == read_state(
        server.source
    )


def test_power_cuts_at_any_moment(server: World, nightly_s: float | None) -> None:
    seed = SEED if nightly_s is None else int(time.time())
    print(f"seed {seed}")
    dice = random.Random(seed)  # noqa: S311 # dice, no secret
    server.slow("30mbit")
    states: list[State] = []
    deadline = time.monotonic() + (nightly_s or 0)
    number = 1
    while number <= CUTS or time.monotonic() < deadline:
        number += 1
        change_at_random(server.source, dice)
        states.append(read_state(server.source))
        running = server.start(retries=OFTEN, delay_s=0)
        time.sleep(dice.uniform(0.1, 1.2))
        cut_power(server, number)
        assert_known(server, states)
        outcome = running.finish()
        assert outcome.status == 0, outcome
        assert read_state(server.current) == states[-1]
        assert_known(server, states)
        server.let_time_pass()
        server.assert_nothing_left()


def assert_known(world: World, states: list[State]) -> None:
    """Every snapshot is a state that the source has had."""
    for name in world.snapshots():
        assert read_state(world.copy_in(name)) in states, name
