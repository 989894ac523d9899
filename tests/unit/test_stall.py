"""An rsync that stands still is ended; one that is slow is left to do its work."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import pytest

from byteback.system import process
from byteback.system.rsync import command
from byteback.system.rsync.command import Outcome, transfer
from byteback.system.rsync.stall import Watch, work_of
from tests.waiting import wait_until

# In seconds. Both sides send a keep-alive message each half of the first.
TIMEOUT_S, PATIENCE_S = 8, 6.0


def pull(source: Path, target: Path, *words: str) -> Outcome:
    """A real rsync from ``source`` to ``target``, over a pipe for a network."""
    if shutil.which("rsync") is None:
        pytest.skip("rsync is not installed")
    shell = target.parent / "shell"
    shell.write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')
    shell.chmod(0o755)
    return transfer(
        [
            *("rsync", "--archive", "--hard-links", f"--timeout={TIMEOUT_S}"),
            *("--stats", "--no-human-readable", f"--rsh={shell}", *words),
            *("--", f"host:{source}/", f"{target}/"),
        ],
        patience_s=PATIENCE_S,
    )


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """Three names of one file, and a full directory where the last belongs."""
    source, target = tmp_path / "source", tmp_path / "target"
    for name in ("a", "b", "c"):
        (source / name).mkdir(parents=True)
    (source / "a/one").write_text("one file")
    (source / "b/two").hardlink_to(source / "a/one")
    (source / "c/three").hardlink_to(source / "a/one")
    (target / "c/three/full").mkdir(parents=True)
    return source, target


def test_an_rsync_that_stands_still_is_ended(trees: tuple[Path, Path]) -> None:
    """Its own --timeout never ends this one: both sides send keep-alive messages."""
    outcome = pull(*trees)
    assert outcome.is_stalled
    assert outcome.status != command.SUCCESS
    assert not pull(*trees, "--no-inc-recursive").is_stalled


def test_a_slow_line_is_no_standstill(tmp_path: Path) -> None:
    """It takes twice the time that doing nothing may take."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "file").write_bytes(bytes(range(256)) * 200)
    started = time.monotonic()
    outcome = pull(source, target, "--bwlimit=4")
    assert (outcome.status, outcome.is_stalled) == (command.SUCCESS, False)
    assert time.monotonic() - started > 2 * PATIENCE_S
    assert (target / "file").stat().st_size == 256 * 200


def test_work_without_a_byte_on_the_line_counts() -> None:
    """As when millions of names are looked at, and all are as they should be."""
    script = "import os\nwhile True: os.stat('/')"
    busy = process.start([sys.executable, "-c", script])
    idle = process.start(["sleep", "infinity"])
    watch = Watch(busy.pid, 2.0, tick_s=0.2)
    other = Watch(idle.pid, 4.0, tick_s=0.2)

    def is_other_stalled() -> bool:
        assert not watch.is_stalled()
        return other.is_stalled()

    try:
        assert work_of(busy.pid) is not None
        wait_until(is_other_stalled)
    finally:
        for one in (busy, idle):
            process.stop(one)
            one.communicate()


def test_time_in_which_it_was_not_asked_does_not_count() -> None:
    """This program may have been stopped, and rsync be waiting for it."""
    idle = process.start(["sleep", "60"])
    try:
        watch = Watch(idle.pid, 1.0, tick_s=0.1)
        watch.is_stalled()
        time.sleep(1.5)
        assert not watch.is_stalled()
    finally:
        process.stop(idle)
        idle.communicate()


def test_a_program_that_is_gone_has_no_work() -> None:
    gone = process.start(["true"])
    gone.communicate()
    assert work_of(gone.pid) is None
