"""Real btrfs volumes, users and ssh servers, each taken away after its test.

All of it happens on a throw-away copy of the machine (tests/machine); the tests
refuse to run anywhere else, for they change users, /etc and mounts.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.integration.programs import do_without, require_program, run_program
from tests.waiting import PATIENCE_S

CHECKOUT = Path(__file__).resolve().parents[2]
LIBRARY = Path("/usr/local/lib/byteback")
LAUNCHERS = Path("/usr/local/bin")
CONFIGURATION = Path("/etc/byteback")
STORE_MARK = Path("/var/lib/byteback/store")  # which file system the store is on
CLOCK = STORE_MARK.with_name("clock")  # as pruning has seen it
# The notes of root on a server, and those of a client: of one test alone.
SERVER_NOTES = (
    "alarms.json",
    "client-change",
    "looked",
    "renamed.json",
    "retired.json",
)
CLIENT_NOTES = (
    *("attributes-checked", "discs", "largest-file", "last-backup", "left-out"),
    *("many-links", "record-missed", "selections"),
)
RECORD = Path("/var/cache/byteback/record")
USER = "byteback"
HOST = "client.example"
MOUNT_OPTIONS = "loop,noatime,compress=zstd,user_subvol_rm_allowed"
INTERPRETER = "/usr/bin/python3"  # the one that the server's user can read


@dataclass(frozen=True)
class ServerUser:
    """The account that owns the store."""

    name: str
    uid: int
    gid: int
    home: Path


@dataclass(frozen=True)
class SshServer:
    """An OpenSSH server of the test's own."""

    port: int
    known_hosts: str  # one line, as in a known_hosts file
    log: Path


@dataclass(frozen=True)
class EnrolledClient:
    """This machine as a client of a server that is this machine too."""

    host: str
    port: int
    store: Path  # the store user's home
    configuration: Path  # /etc/byteback
    user: ServerUser
    bin: Path

    @property
    def current(self) -> Path:
        """The directory that the client's backups are written into."""
        return self.store / self.host / "current"


@pytest.fixture(scope="session")
def bare_machine() -> None:
    """A machine on which byteback was never set up, whatever the real one is."""
    os.environ["HOME"] = "/root"
    os.environ.pop("SSH_AUTH_SOCK", None)
    forget_client()
    remove_user()
    for launcher in LAUNCHERS.glob("byteback-*"):
        launcher.unlink()
    hosts = Path("/etc/hosts")  # which a minimal chroot has not
    if not hosts.exists():
        hosts.write_text("127.0.0.1 localhost\n::1 localhost\n")


@pytest.fixture(scope="session")
def installed(bare_machine: None) -> Path:
    """The checkout's programs where every user can run them: their directory."""
    wanted = "import click, paramiko, psutil, xattr"
    if run_program([INTERPRETER, "-c", wanted], check=False).status != 0:
        do_without(f"{INTERPRETER} lacks click, paramiko, psutil or xattr")
    shutil.rmtree(LIBRARY, ignore_errors=True)
    leave_out = shutil.ignore_patterns("__pycache__")
    for part in ("bin", "byteback", "hooks"):
        shutil.copytree(CHECKOUT / part, LIBRARY / part, ignore=leave_out)
    run_program(["chown", "-R", "root:root", LIBRARY])
    run_program(["chmod", "-R", "a+rX,go-w", LIBRARY])
    run_program([INTERPRETER, "-m", "compileall", "-q", LIBRARY / "byteback"])
    for launcher in (LIBRARY / "bin").glob("byteback-*"):
        (LAUNCHERS / launcher.name).symlink_to(launcher)
    return LAUNCHERS


@pytest.fixture
def volume_size() -> int:
    """Bytes of the next volume; a module may have its own idea."""
    return 4 << 30


@pytest.fixture
def mkfs_options() -> tuple[str, ...]:
    """Of mkfs.btrfs, for the next volume; a test may have its own idea."""
    return ()


@pytest.fixture
def btrfs_volume(volume_size: int, mkfs_options: tuple[str, ...]) -> Iterator[Path]:
    """An empty btrfs file system, mounted as a store is."""
    with mounted_volume(volume_size, *mkfs_options) as volume:
        yield volume


@contextlib.contextmanager
def mounted_volume(volume_size: int, *mkfs_options: str) -> Iterator[Path]:
    """The same as btrfs_volume, for fixtures that live longer than one test."""
    require_program("mkfs.btrfs")
    # Not pytest's tmp_path: only root may enter that.
    with tempfile.TemporaryDirectory(prefix="volume-", dir="/srv") as directory:
        volume = Path(directory)
        volume.chmod(0o755)
        with tempfile.NamedTemporaryFile(dir="/var/tmp") as image:
            image.truncate(volume_size)
            run_program(["mkfs.btrfs", "--quiet", *mkfs_options, image.name])
            run_program(["mount", "-o", MOUNT_OPTIONS, image.name, volume])
        try:
            yield volume
        finally:
            unmount(volume)


@pytest.fixture
def server_user(bare_machine: None, btrfs_volume: Path) -> Iterator[ServerUser]:
    """The user ``byteback`` with an empty store on a btrfs volume."""
    run_program(
        [
            *("useradd", "--system", "--user-group", "--no-create-home"),
            *("--home-dir", btrfs_volume, "--shell", "/bin/sh", USER),
        ]
    )
    # No password can be right, and yet the account is not locked.
    run_program(["usermod", "--password", "*", USER])
    try:
        user = find_user()
        for directory, mode in (("", 0o755), (".ssh", 0o700), (".byteback", 0o700)):
            path = btrfs_volume / directory
            path.mkdir(exist_ok=True)
            path.chmod(mode)
            os.chown(path, user.uid, user.gid)
        yield user
    finally:
        remove_user()


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """A private OpenSSH server on a loopback port, for public keys only."""
    program = require_program("sshd")
    directory = tmp_path_factory.mktemp("sshd")
    host_key = directory / "host_key"
    run_program(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", host_key])
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's empty directory
    port = free_port()
    configuration = directory / "sshd_config"
    log = directory / "log"
    write_sshd_configuration(program, configuration, host_key, port)
    server = subprocess.Popen([program, "-D", "-f", configuration, "-E", log])
    try:
        wait_for_port(port, server, log)
        key = " ".join(host_key.with_suffix(".pub").read_text().split()[:2])
        yield SshServer(port, f"[127.0.0.1]:{port} {key}", log)
    finally:
        server.terminate()
        server.wait(PATIENCE_S)


@pytest.fixture
def enrolled_client(
    installed: Path, btrfs_volume: Path, sshd: SshServer
) -> Iterator[EnrolledClient]:
    """A client that the real set-up programs enrolled with a real server."""
    with enrolled(installed, btrfs_volume, sshd) as client:
        yield client


@contextlib.contextmanager
def enrolled(
    installed: Path, btrfs_volume: Path, sshd: SshServer
) -> Iterator[EnrolledClient]:
    """The same as enrolled_client, for fixtures that live longer than one test."""
    forget_client()
    admin_key = make_admin_key()
    try:
        run_program(
            [
                *(installed / "byteback-setup-server", "--directory", btrfs_volume),
                *("--no-schedule", "--admin-key", admin_key.with_suffix(".pub")),
            ]
        )
        run_program(
            [
                *(installed / "byteback-setup-client", "--hostname", HOST),
                *("--destination", f"ssh://{USER}@127.0.0.1:{sshd.port}/"),
                "--accept-new-host-key",
            ]
        )
        user = find_user()
        yield EnrolledClient(HOST, sshd.port, user.home, CONFIGURATION, user, installed)
    finally:
        forget_client()
        remove_user()


def make_admin_key() -> Path:
    """The administrator's own login key, in root's home on the copy."""
    key = Path("/root/.ssh/id_ed25519")
    key.parent.mkdir(mode=0o700, exist_ok=True)
    run_program(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    return key


def forget_client() -> None:
    """Take away all that setting up a client leaves on a machine."""
    for directory in (CONFIGURATION, Path("/root/.ssh"), Path("/run/byteback")):
        shutil.rmtree(directory, ignore_errors=True)
    for path in (RECORD, *map(STORE_MARK.with_name, CLIENT_NOTES)):
        path.unlink(missing_ok=True)


def find_user() -> ServerUser:
    """The byteback user as the user database has it."""
    entry = pwd.getpwnam(USER)
    return ServerUser(USER, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir))


def remove_user() -> None:
    """Remove the byteback user and end his processes; his files stay."""
    for path in (STORE_MARK, CLOCK, *map(STORE_MARK.with_name, SERVER_NOTES)):
        path.unlink(missing_ok=True)
    try:
        user = find_user()
    except KeyError:
        return
    end_processes_of(user)
    run_program(["userdel", "--force", USER], check=False)
    run_program(["groupdel", USER], check=False)


def end_processes_of(user: ServerUser) -> None:
    """End what a test left running as the user, here in the copy's own processes.

    Again and again, for one that is about to end may just have started another.
    """
    deadline = time.monotonic() + PATIENCE_S
    while left := processes_of(user):
        if time.monotonic() > deadline:
            pytest.fail(f"processes of {user.name} do not end: {left}")
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.02)


def processes_of(user: ServerUser) -> list[psutil.Process]:
    """The user's living processes."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            is_his = process.uids().real == user.uid
            if is_his and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def unmount(volume: Path) -> None:
    """Unmount, or detach from what holds it for longer than a few seconds."""
    deadline = time.monotonic() + 20
    while run_program(["umount", volume], check=False).status != 0:
        if time.monotonic() > deadline:
            run_program(["umount", "--lazy", volume], check=False)
            return
        time.sleep(0.1)


def free_port() -> int:
    """A TCP port on the loopback interface that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def write_sshd_configuration(
    program: Path, configuration: Path, host_key: Path, port: int
) -> None:
    """A strict configuration that owes nothing to the machine's own."""
    lines = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {host_key}",
        f"PidFile {configuration.parent / 'pid'}",
        "UsePAM no",
        "StrictModes yes",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "LogLevel VERBOSE",
        "MaxStartups 100",
        "PerSourcePenalties no",  # OpenSSH 9.8: refused logins are what tests do
    ]
    configuration.write_text("\n".join(lines) + "\n")
    if run_program([program, "-t", "-f", configuration], check=False).status != 0:
        configuration.write_text("\n".join(lines[:-1]) + "\n")
        run_program([program, "-t", "-f", configuration])


def wait_for_port(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    """Return once the server answers; fail with its log if it ends instead."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except (ConnectionRefusedError, TimeoutError):
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"sshd does not answer on port {port}:\n{log.read_text()}")
