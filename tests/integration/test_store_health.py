"""Errors of a real device reach the alarms: a block changed below the file system."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.integration.conftest import ServerUser
from tests.integration.programs import run_program
from tests.integration.pruning.store import PruneStore

pytestmark = pytest.mark.integration

NEEDLE = b"a block that the disc will give back wrongly"
BLOCK = 4096
PIECE = 1 << 20


@pytest.fixture
def volume_size() -> int:
    """Small, for it is read through."""
    return 512 << 20


@pytest.fixture
def store(installed: Path, server_user: ServerUser) -> PruneStore:
    """A store on a loop device."""
    return PruneStore(server_user, installed)


def alarms(store: PruneStore, *, as_root: bool = True) -> dict[str, str]:
    """The alarms of the store about its disc: kind and message."""
    become = [] if as_root else store.as_user_words
    program = store.program.with_name("byteback-status")
    found = json.loads(run_program([*become, program, "--json"]).stdout)["alarms"]
    kinds = {"device-errors", "scrub-errors"}
    return {a["kind"]: a["message"] for a in found if a["kind"] in kinds}


def device_of(root: Path) -> Path:
    return Path(run_program(["findmnt", "-nro", "SOURCE", root]).stdout.strip())


def spoil(device: Path) -> None:
    """Change the needle's block on the device, below the file system."""
    fd = os.open(device, os.O_RDWR)
    try:
        place, at = -1, 0
        while place < 0:
            piece = os.pread(fd, PIECE, at)
            assert piece, "the needle is not on the device"
            found = piece.find(NEEDLE)
            place = at + found if found >= 0 else -1
            at += PIECE
        os.pwrite(fd, b"X" * len(NEEDLE), place)
        os.fsync(fd)
    finally:
        os.close(fd)


def forget_cached(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def test_a_block_that_the_disc_gives_back_wrongly(store: PruneStore) -> None:
    victim = store.client("a") / "current" / "file"
    rest = os.urandom(64 * BLOCK - len(NEEDLE))
    victim.write_bytes(NEEDLE + rest)
    store.commit()
    assert alarms(store) == {}
    spoil(device_of(store.root))
    forget_cached(victim)
    with pytest.raises(OSError, match="Input/output error"):
        victim.read_bytes()
    for as_root in (True, False):
        (said,) = alarms(store, as_root=as_root).values()
        assert "corrupt blocks" in said
    program = store.program.with_name("byteback-status")
    check = run_program([program, "--check"], check=False)
    assert check.status == 2
    assert "device-errors" in check.stdout
    assert 'kind="device-errors",level="critical"} 1' in (
        run_program([program, "--prometheus"]).stdout
    )
    run_program(["btrfs", "scrub", "start", "-B", store.root], check=False)
    assert set(alarms(store)) == {"device-errors", "scrub-errors"}
    # What byteback-status(1) says to do.
    victim.unlink()
    store.commit()
    run_program(["btrfs", "device", "stats", "-z", store.root])
    run_program(["btrfs", "scrub", "start", "-B", store.root])
    assert alarms(store) == {}
