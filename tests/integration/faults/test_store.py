"""A client whose server's store is not mounted, or cannot be written to any more."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.faults.parts import HOST, mount_store, unmount_store
from tests.integration.faults.test_trouble import assert_told_once, restart_sshd
from tests.integration.faults.world import World, write_files
from tests.integration.programs import Outcome, run_program
from tests.waiting import wait_until

MEBI = 1 << 20
KEYS = Path("/run/authorized_keys")


@pytest.fixture
def keys_elsewhere(world: World) -> Iterator[None]:
    """sshd finds the keys without the store, as some administrators have it."""
    before = world.sshd_configuration.read_text()
    KEYS.write_bytes((world.store / ".ssh" / "authorized_keys").read_bytes())
    KEYS.chmod(0o644)
    world.sshd_configuration.write_text(f"AuthorizedKeysFile {KEYS}\n{before}")
    restart_sshd(world)
    yield
    world.sshd_configuration.write_text(before)
    restart_sshd(world)


@contextlib.contextmanager
def unmounted(world: World) -> Iterator[None]:
    """The store is away for the length of the block, or until something mounts it."""
    unmount_store(world.store)
    try:
        yield
        assert world.store.is_mount() or list(world.store.iterdir()) == []
    finally:
        if not world.store.is_mount():
            mount_store(world.image, world.store)


def restore(world: World, *words: str) -> Outcome:
    client = ["nsenter", "--net=/run/netns/client"]
    return run_program([*client, "byteback-restore", *words], check=False)


def test_a_store_that_is_not_mounted(world: World, keys_elsewhere: None) -> None:
    write_files(world.source, [10])
    with unmounted(world):
        outcome = world.backup(expect=75, retries=1, delay_s=0)
        assert_told_once(outcome, "the server's store is not there: its disc is not")
        assert "(after 2 attempts)" in outcome.stderr
        assert "byteback-setup-client" not in outcome.stderr
        listed = restore(world, str(world.source))
        assert (listed.status, "is not mounted" in listed.stderr) == (75, True)
        running = world.start("--verbose", retries=20)
        running.wait_for_words("attempt 1 of 21 failed")
        mount_store(world.image, world.store)
        assert running.finish().status == 0
    assert len(world.snapshots()) == 1


def test_a_machine_is_not_enrolled_without_the_store(
    world: World, keys_elsewhere: None
) -> None:
    with unmounted(world):
        outcome = run_program(
            [
                *("nsenter", "--net=/run/netns/client", "byteback-setup-client"),
                *("--hostname", HOST, "--destination", "byteback@backup.test:"),
            ],
            check=False,
        )
        assert outcome.status == 10
        assert "the store is not mounted" in outcome.stderr


def test_keys_that_are_in_a_store_that_is_not_mounted(world: World) -> None:
    """sshd alone answers then; the client names both causes, and comes again."""
    write_files(world.source, [10])
    with unmounted(world):
        outcome = world.backup(expect=9, retries=1, delay_s=0)
        assert_told_once(outcome, "does not take this machine's key (after 2 attempts)")
        assert "may not be mounted" in outcome.stderr
        running = world.start("--verbose", retries=20)
        running.wait_for_words("attempt 1 of 21 failed")
        mount_store(world.image, world.store)
        assert running.finish().status == 0


def test_a_read_only_store(world: World) -> None:
    write_files(world.source, [10])
    world.backup()
    for left in (world.store / ".byteback").rglob("*.lock"):
        left.unlink()  # which cannot be made again
    # Not while a session of the backup has a file open.
    read_only: list[str | Path] = ["mount", "-o", "remount,ro", world.store]
    wait_until(lambda: run_program(read_only, check=False).status == 0)
    try:
        outcome = world.backup(expect=75, retries=1, delay_s=0)
        assert_told_once(outcome, "the server's store cannot be written to")
        assert "full" not in outcome.stderr
        target = world.source.parent / "target"
        file = f"{world.source}/file-0"
        assert file in restore(world, file).stdout
        done = restore(world, "--restore", "--to", str(target), file)
        assert done.status == 0, done
        assert list(target.rglob("file-0"))
    finally:
        run_program(["mount", "-o", "remount,rw", world.store])
    world.backup()
    world.assert_nothing_left()
