"""Locks: who holds them is told, a killed holder is none, and nobody plants them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from byteback import locking
from byteback.errors import BytebackError, LockedError

HOLD = """
import sys, time
from pathlib import Path
from byteback import locking
with locking.hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def hold_elsewhere(path: Path) -> subprocess.Popen[bytes]:
    """A process of its own that holds the lock."""
    checkout = Path(__file__).resolve().parents[2]
    argv = [sys.executable, "-B", "-c", HOLD, str(path)]
    holder = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=checkout)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    holder.stdout.close()
    return holder


def test_the_holder_is_told(tmp_path: Path) -> None:
    path = tmp_path / "run/lock"
    holder = hold_elsewhere(path)
    try:
        words = f"cannot lock '{path}': held by pid {holder.pid} \\(-c, since 20"
        with pytest.raises(LockedError, match=words), locking.hold(path):
            pass
    finally:
        holder.kill()
        holder.wait()


def test_a_killed_holder_blocks_nobody(tmp_path: Path) -> None:
    path = tmp_path / "run/lock"
    holder = hold_elsewhere(path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locking.hold(path) as lock:
        assert f"held by pid {holder.pid}" not in locking.read_holder(lock.path)


def test_waiting_for_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "run/lock"
    holder = hold_elsewhere(path)
    subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {holder.pid}"]).wait()
    with locking.hold(path, wait_s=5):
        pass
    holder.wait()


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    (directory / "lock").symlink_to(victim)
    with pytest.raises(BytebackError, match="cannot use"):
        locking.hold(directory / "lock").__enter__()
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_directory_that_others_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(BytebackError, match="other users can write to it"):
        locking.hold(directory / "lock").__enter__()


def test_a_linked_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "run").symlink_to("elsewhere")
    with pytest.raises(BytebackError, match="other users can write to it"):
        locking.hold(tmp_path / "run/lock").__enter__()


def test_a_directory_is_a_lock_itself(tmp_path: Path) -> None:
    held = locking.hold_directory(tmp_path)
    held.__enter__()
    with pytest.raises(LockedError, match="held by another process"):
        locking.hold_directory(tmp_path).__enter__()
    held.__exit__(None, None, None)
    with locking.hold_directory(tmp_path):
        pass


def test_whoever_inherits_a_lock_cannot_write_into_its_file(tmp_path: Path) -> None:
    """A taken-over rsync would fill the disc there, where no discard looks."""
    path = tmp_path / "own" / "a.lock"
    with locking.hold(path) as lock:
        for write in (
            lambda: os.write(lock.fd, b"x"),
            lambda: os.ftruncate(lock.fd, 1 << 20),
            lambda: os.posix_fallocate(lock.fd, 0, 1 << 20),
        ):
            with pytest.raises(OSError, match=r"Bad file|Invalid"):
                write()
        assert f"pid {os.getpid()}" in locking.read_holder(path)
