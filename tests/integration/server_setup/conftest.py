"""The program, and a device for it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import remove_user, unmount
from tests.integration.programs import Outcome, require_program, run_program
from tests.integration.server_setup.machine import (
    CRON,
    FSTAB,
    HOME,
    IMAGE,
    SIZE,
    SetUp,
    unmount_all,
)


@pytest.fixture
def set_up(installed: Path) -> Iterator[SetUp]:
    """Runs the program on a machine that holds no store; takes all away afterwards."""
    require_program("mkfs.btrfs")
    before = FSTAB.read_bytes() if FSTAB.exists() else b""

    def run(*words: str | Path, check: bool = True, stdin: str = "") -> Outcome:
        return run_program(
            [installed / "byteback-setup-server", *words], check=check, stdin=stdin
        )

    yield run
    while HOME.is_mount():
        unmount(HOME)
    FSTAB.write_bytes(before)
    remove_user()
    shutil.rmtree(HOME, ignore_errors=True)
    for path in (IMAGE, CRON):
        path.unlink(missing_ok=True)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """An empty block device."""
    disc = tmp_path / "disc"
    with disc.open("xb") as file:
        file.truncate(SIZE)
    loop = run_program(["losetup", "--find", "--show", disc]).stdout.strip()
    try:
        yield Path(loop)
    finally:
        unmount_all(loop)
        run_program(["losetup", "--detach", loop])
