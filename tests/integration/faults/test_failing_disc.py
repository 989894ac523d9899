"""The server's disc fails below btrfs: what did not reach it is sent again.

The store's image is on a smaller disc, of which set-up warns, and that is full.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import conftest as machine
from tests.integration.faults.parts import mount_store, unmount_store
from tests.integration.faults.test_trouble import assert_told_once
from tests.integration.faults.trees import read_state
from tests.integration.faults.world import World, build_world, write_files
from tests.integration.programs import run_program

MEBI = 1 << 20
OUTER = Path("/srv/outer")
DISC_SIZE = 1200 * MEBI
METADATA = 549 * MEBI  # where mkfs.btrfs has put all room for metadata, and no more


@pytest.fixture(scope="module", params=[METADATA, 0], ids=["data", "all"])
def shared_world(installed: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """Two machines; the server's store is in an image on a small disc.

    Of the image so many bytes have room there already: those can always be written.
    """
    disc = Path("/var/tmp/outer.img")
    OUTER.mkdir()
    with contextlib.ExitStack() as stack:
        stack.callback(OUTER.rmdir)
        with disc.open("wb") as file:
            file.truncate(DISC_SIZE)
        stack.callback(disc.unlink)
        run_program(["mkfs.ext4", "-q", "-m", "0", disc])
        run_program(["mount", "-o", "loop", disc, OUTER])
        stack.callback(machine.unmount, OUTER)
        world = stack.enter_context(build_world(installed, OUTER))
        if request.param:
            with world.image.open("r+b") as image:
                os.posix_fallocate(image.fileno(), 0, request.param)
        yield world


@contextlib.contextmanager
def full_disc(world: World) -> Iterator[None]:
    """No room on the disc around the image for the length of the block.

    If btrfs made the store read-only meanwhile it is mounted anew.
    """
    ballast = OUTER / "ballast"
    os.sync()
    view = os.statvfs(OUTER)
    try:
        with ballast.open("wb") as file:
            size = view.f_bavail * view.f_frsize - MEBI
            os.posix_fallocate(file.fileno(), 0, size)
        yield
    finally:
        ballast.unlink()
        if is_read_only(world):
            world.assert_nothing_left()
            unmount_store(world.store)
            mount_store(world.image, world.store)
        os.sync()


def is_read_only(world: World) -> bool:
    return bool(os.statvfs(world.store).f_flag & os.ST_RDONLY)


def test_data_that_did_not_reach_the_disc_is_no_backup(
    world: World, request: pytest.FixtureRequest
) -> None:
    """Where btrfs goes on, rsync hears of nothing."""
    write_files(world.source, [4 * MEBI] * 10)
    with full_disc(world):
        outcome = world.backup(expect=75, retries=0)
        assert "disc may have failed" in outcome.stderr
        assert is_read_only(world) == ("[all]" in request.node.name)
        if is_read_only(world):
            again = world.backup(expect=75, retries=0)
            assert_told_once(again, "the server's store cannot be written to")
    assert world.snapshots() == []
    world.backup()
    assert read_state(world.current) == read_state(world.source)
    world.assert_nothing_left()


def test_what_was_written_in_place_meanwhile_is_compared_again(world: World) -> None:
    """By size and time it is as good as new."""
    sizes = [4 * MEBI] * 10
    write_files(world.source, sizes)
    world.backup()
    world.let_time_pass()
    write_files(world.source, sizes)
    with full_disc(world):
        world.backup(expect=75, retries=0)
    world.backup()
    assert read_state(world.current) == read_state(world.source)
    assert len(world.snapshots()) == 2
