"""File systems for tests: discs, and FUSE whose server can be stopped or killed."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.integration.conftest import unmount
from tests.integration.programs import SEARCH_PATH, require_program, run_program
from tests.waiting import wait_until

STRANGER = "nobody"


@contextlib.contextmanager
def disc(point: Path, mkfs: str = "mkfs.ext4 -q -F") -> Iterator[Path]:
    """A file system on a disc of its own, mounted at ``point``."""
    require_program(mkfs.split(maxsplit=1)[0])
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as image:
        image.truncate(128 << 20)
        run_program([*mkfs.split(), image.name])
        run_program(["mount", "-o", "loop", image.name, point])
        try:
            yield point
        finally:
            unmount(point)


@contextlib.contextmanager
def mounted(point: Path, *words: str | Path) -> Iterator[Path]:
    """A mount at ``point``, by mount(8) with ``words``."""
    run_program(["mount", *words, point])
    try:
        yield point
    finally:
        run_program(["umount", "--lazy", point])


class Fuse:
    """A bindfs: its mount point, and the program that answers for it."""

    def __init__(self, point: Path, server: subprocess.Popen[bytes]) -> None:
        self.point = point
        self.server = server

    def kill(self) -> None:
        """From here on every look at it is an error (ENOTCONN)."""
        self.server.kill()
        self.server.wait()

    def stop(self) -> None:
        """From here on no look at it returns."""
        self.server.send_signal(signal.SIGSTOP)
        time.sleep(1.2)  # what the kernel keeps of the last answer gets old


@contextlib.contextmanager
def fuse(source: Path, point: Path, *, as_stranger: bool = False) -> Iterator[Fuse]:
    """bindfs shows ``source`` at ``point``: ``as_stranger`` to that user alone."""
    argv: list[str | Path] = [require_program("bindfs"), "-f"]
    if as_stranger:
        _allow_everybody()
        user = [f"--reuid={STRANGER}", "--regid=nogroup", "--clear-groups"]
        argv = [require_program("setpriv"), *user, *argv, "--no-allow-other"]
        point.chmod(0o777)
    server = subprocess.Popen([*argv, source, point], env={"PATH": SEARCH_PATH})
    try:
        _wait_for(point, server)
        yield Fuse(point, server)
    finally:
        run_program(["umount", "--lazy", point], check=False)
        server.kill()
        server.wait()


def write_below(point: Path, name: str) -> None:
    """Put a file where a mount hides it: into the directory that is mounted on."""
    with (
        tempfile.TemporaryDirectory(dir="/srv") as view,
        mounted(Path(view), "--bind", point.parent),
    ):
        Path(view, point.name, name).write_text(name)


def _wait_for(point: Path, server: subprocess.Popen[bytes]) -> None:
    def is_mounted() -> bool:
        assert server.poll() is None, "bindfs has ended"
        return f" {point} " in Path("/proc/self/mountinfo").read_text()

    wait_until(is_mounted, f"{point} was not mounted")


def _allow_everybody() -> None:
    """Let ordinary users mount, as udev does; on this copy of the machine alone."""
    device = Path("/dev/fuse")
    if stat.S_IMODE(device.stat().st_mode) == 0o666:
        return
    own = Path("/root/fuse-device")
    if not own.exists():
        os.mknod(own, stat.S_IFCHR | 0o666, device.stat().st_rdev)
        own.chmod(0o666)
    run_program(["mount", "--bind", own, device])
