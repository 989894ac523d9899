"""The parts that the two machines are built of: a cable, a store, a server."""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import conftest as machine
from tests.integration.programs import (
    require_program,
    run_program,
)
from tests.waiting import PATIENCE_S, wait_until

NAME = "backup.test"
HOST = "client.test"
ADDRESS = {"server": "10.200.1.1", "client": "10.200.1.2"}
ADDRESS6 = {"server": "fd00:200:1::1", "client": "fd00:200:1::2"}
SIDES = ("server", "client")
CABLE = "cable"
# Who waits for the snapshot may be killed meanwhile: then nothing is made.
HELD = Path("/run/completion-is-held")
BTRFS_STAND_IN = Path("/usr/local/sbin/btrfs")
HOLDING_BTRFS = f"""#!/bin/sh
case "$*" in *"subvolume snapshot"*)
    while [ -e {HELD} ] && kill -0 $PPID; do sleep 0.05; done
    kill -0 $PPID || exit 1 ;;
esac
exec /usr/bin/btrfs "$@"
"""


def lay_cable() -> None:
    """Join the two namespaces, and give both ends their addresses."""
    peer = ["peer", "name", CABLE, "netns", "client"]
    run_program(["ip", "link", "add", CABLE, "netns", "server", "type", "veth", *peer])
    for side in SIDES:
        run_program(["ip", "-n", side, "link", "set", "lo", "up"])
        run_program(["ip", "-n", side, "link", "set", CABLE, "up"])
        address = [f"{ADDRESS[side]}/24", "dev", CABLE]
        run_program(["ip", "-n", side, "addr", "add", *address])
        # The cable is a kernel's own: without this a "packet" has up to 64 KiB, and
        # a slow line lets none of those through.
        sizes = ["gso_max_size", "1500", "gro_max_size", "1500"]
        run_program(["ip", "-n", side, "link", "set", CABLE, *sizes], check=False)


@contextlib.contextmanager
def store_volume(image: Path) -> Iterator[Path]:
    """An empty btrfs in ``image``, mounted as a store is."""
    with tempfile.TemporaryDirectory(prefix="volume-", dir="/srv") as directory:
        volume = Path(directory)
        volume.chmod(0o755)
        with image.open("wb") as file:
            file.truncate(4 << 30)
        try:
            run_program(["mkfs.btrfs", "--quiet", image])
            mount_store(image, volume)
            try:
                yield volume
            finally:
                machine.unmount(volume)
        finally:
            image.unlink()


def mount_store(image: Path, volume: Path) -> None:
    """Mount the store, committing often: so a power cut falls between two commits."""
    run_program(["mount", "-o", f"{machine.MOUNT_OPTIONS},commit=1", image, volume])


@contextlib.contextmanager
def server_sshd() -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The server's OpenSSH, and its configuration."""
    program = require_program("sshd")
    with tempfile.TemporaryDirectory(prefix="sshd-") as name:
        directory = Path(name)
        host_key = directory / "host_key"
        run_program(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", host_key])
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        configuration = directory / "sshd_config"
        machine.write_sshd_configuration(program, configuration, host_key, 22)
        text = configuration.read_text()
        configuration.write_text(text.replace("ListenAddress 127.0.0.1", ""))
        yield start_sshd(configuration), configuration


def start_sshd(configuration: Path) -> subprocess.Popen[bytes]:
    """An OpenSSH server on the server's side."""
    log = configuration.parent / "log"
    program = str(require_program("sshd"))
    options = ["-D", "-f", str(configuration), "-E", str(log)]
    sshd = subprocess.Popen(["nsenter", "--net=/run/netns/server", program, *options])
    probe = ["nsenter", "--net=/run/netns/client", "bash", "-c"]
    probe.append(f"exec 3<>/dev/tcp/{ADDRESS['server']}/22")
    deadline = time.monotonic() + PATIENCE_S
    while run_program(probe, check=False).status != 0:
        if time.monotonic() > deadline:
            pytest.fail(f"sshd does not answer:\n{log.read_text()}")
        time.sleep(0.05)
    return sshd


def unmount_store(volume: Path) -> None:
    """Unmount the store once what used it has ended."""
    wait_until(
        lambda: run_program(["umount", volume], check=False).status == 0,
        "the store stays in use",
    )


@contextlib.contextmanager
def constants(module: str, **values: object) -> Iterator[None]:
    """Other constants in the installed programs for the length of the block."""
    path = machine.LIBRARY / "byteback" / module
    before = text = path.read_text()
    for name, value in values.items():
        text, count = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", text)
        assert count == 1, f"{module} has no {name}"
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(before)


@contextlib.contextmanager
def held_completion() -> Iterator[None]:
    """The server takes no snapshot for the length of the block, but waits."""
    HELD.touch()
    BTRFS_STAND_IN.parent.mkdir(exist_ok=True)
    BTRFS_STAND_IN.write_text(HOLDING_BTRFS)
    BTRFS_STAND_IN.chmod(0o755)
    try:
        yield
    finally:
        BTRFS_STAND_IN.unlink()
        HELD.unlink()
