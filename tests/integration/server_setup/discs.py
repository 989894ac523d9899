"""Devices that come and go below a server's store, and what btrfs says of them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from byteback.errors import UsageError
from byteback.server.discs.run import DiscRequest, change_discs
from byteback.server.store import presence
from byteback.system import fstab
from byteback.system.btrfs.identity import identify
from tests.integration.programs import Outcome, run_program
from tests.integration.server_setup.machine import HOME
from tests.waiting import PATIENCE_S, wait_until

MIB = 1 << 20
SIZE = 512 * MIB
SLOW = "2097152"  # bytes a second, for a replacement: it takes a minute


@dataclass(frozen=True)
class Discs:
    """A server, and devices that come and go."""

    program: Path
    directory: Path
    loops: list[Path] = field(default_factory=list)

    def device(self, size: int = SIZE) -> Path:
        """An empty block device."""
        disc = self.directory / f"disc-{len(self.loops)}"
        with disc.open("xb") as file:
            file.truncate(size)
        loop = run_program(["losetup", "--find", "--show", disc]).stdout.strip()
        self.loops.append(Path(loop))
        return self.loops[-1]

    def store(self, size: int = SIZE) -> Path:
        """A store on a device of its own, with 100 MiB in it, as set-up makes one."""
        device = self.device(size)
        run_program(["mkfs.btrfs", "--quiet", device])
        options = ("noatime", "compress=zstd", "user_subvol_rm_allowed", "nofail")
        run_program(["mount", "-o", ",".join(options[:3]), device, HOME])
        fstab.add(fstab.Entry(f"UUID={uuid()}", str(HOME), "btrfs", options))
        found = identify(HOME)
        assert found is not None
        presence.write_mark(found)
        fill(100)
        return device

    def run(self, *words: str | Path, status: int = 0) -> Outcome:
        """byteback-setup-server, which is to end with ``status``."""
        done = run_program([self.program, *words], check=False)
        assert done.status == status, done
        return done

    def refused(self, said: str, **words: Any) -> None:
        """The same without a start of Python: a refusal of a request."""
        with pytest.raises(UsageError) as caught:
            list(change_discs(DiscRequest(**words)))
        assert said in caught.value.message

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """The program while it runs."""
        argv: list[str | Path] = [self.program, *words, "--yes"]
        return subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)


def fill(megabytes: int) -> None:
    for number in range(megabytes // 10):
        (HOME / f"file-{number}").write_bytes(os.urandom(10 * MIB))
    run_program(["btrfs", "filesystem", "sync", HOME])


def contents() -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in HOME.glob("file-*")
    }


def numbers() -> dict[str, int]:
    """The devices of the store, and the bytes that it uses of each."""
    shown = run_program(["btrfs", "filesystem", "show", "--raw", HOME]).stdout
    lines = [line.split() for line in shown.splitlines() if "devid" in line]
    return {words[-1]: int(words[3]) for words in lines}


def mount_again() -> None:
    """As at the machine's next start: by fstab alone."""
    # What a killed run had started may end a moment later.
    wait_until(lambda: run_program(["umount", HOME], check=False).status == 0)
    run_program(["mount", HOME])


def uuid() -> str:
    return run_program(["findmnt", "-no", "UUID", HOME]).stdout.strip()


def file_behind(device: Path) -> Path:
    argv = ["losetup", "--noheadings", "--output", "BACK-FILE", str(device)]
    return Path(run_program(argv).stdout.strip())


def wait_for(operation: str, program: subprocess.Popen[str] | None = None) -> None:
    """Until the kernel has begun it, or ``program`` has ended."""
    place = Path(f"/sys/fs/btrfs/{uuid()}/exclusive_operation")
    deadline = time.monotonic() + PATIENCE_S
    while place.read_text().strip() != operation:
        if program is not None and program.poll() is not None:
            return
        assert time.monotonic() < deadline
        time.sleep(0.005)


def replacement_speed(limit: str) -> None:
    Path(f"/sys/fs/btrfs/{uuid()}/devinfo/1/scrub_speed_max").write_text(limit)
