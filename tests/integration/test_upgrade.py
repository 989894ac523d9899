"""A client and a store as the Ruby tool left them go on working, and become modern."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from byteback.system.btrfs import commands
from tests.integration.conftest import (
    CONFIGURATION,
    HOST,
    ServerUser,
    SshServer,
    forget_client,
    free_port,
    make_admin_key,
    wait_for_port,
    write_sshd_configuration,
)
from tests.integration.programs import Outcome, require_program, run_program

OLD = ["2014-03-01T03:00", "2016-05-01T03:00+0100", "2017-07-01T03:00+0200"]
SAVED = "saved-do-not-delete"
ALIAS = "mybackuphost"
SSHD_DROP_IN = Path("/etc/ssh/sshd_config.d/old.conf")
SERVER_CRON = Path("/etc/cron.d/byteback-server")
SOURCE = Path("/srv/website")
# What the old client gave rsync.
PUSH = ["--archive", "--xattrs", "--numeric-ids", "--delete-excluded"]
PUSH += ["--delete-during", "--inplace", "--relative", "--timeout", "10800"]
PULL = ["--archive", "--numeric-ids", "--inplace", "--relative", "--timeout", "300"]


@dataclass(frozen=True)
class OldWorld:
    """A machine that byteback 0.4 backed up to itself until a moment ago."""

    user: ServerUser
    bin: Path

    @property
    def place(self) -> Path:
        """The client's directory in the store."""
        return self.user.home / HOST

    @property
    def key_lines(self) -> str:
        return (self.user.home / ".ssh" / "authorized_keys").read_text()

    def ask(self, request: str, *, check: bool = True) -> Outcome:
        """Send a request as the old client did, word for word."""
        return run_program(
            ["ssh", "-i", CONFIGURATION / "key", ALIAS, request], check=check
        )

    def rsync(self, *words: str | Path) -> Outcome:
        """Run rsync as the old client did."""
        shell = f"ssh -i {CONFIGURATION / 'key'}"
        return run_program(["rsync", "-e", shell, *words])

    def run(self, program: str, *words: str | Path, check: bool = True) -> Outcome:
        """Run a new program."""
        return run_program([self.bin / program, *words], check=check)


@pytest.fixture
def old_sshd(sshd: SshServer, tmp_path: Path) -> Iterator[int]:
    """The port of an sshd that lets authorized_keys set variables."""
    program = require_program("sshd")
    host_key, configuration = tmp_path / "host_key", tmp_path / "sshd_config"
    run_program(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", host_key])
    port = free_port()
    write_sshd_configuration(program, configuration, host_key, port)
    with configuration.open("a") as file:
        file.write("PermitUserEnvironment yes\n")
    log = tmp_path / "log"
    with subprocess.Popen([program, "-D", "-f", configuration, "-E", log]) as server:
        wait_for_port(port, server, log)
        yield port
        server.terminate()


@pytest.fixture
def old_world(
    installed: Path, server_user: ServerUser, old_sshd: int, tmp_path: Path
) -> Iterator[OldWorld]:
    """Everything as 0.4 left it, and the new programs."""
    forget_client()
    make_old_client(old_sshd, tmp_path / "host_key.pub")
    make_old_store(server_user)
    SOURCE.mkdir()
    (SOURCE / "page").write_text("new")
    try:
        yield OldWorld(server_user, installed)
    finally:
        forget_client()
        shutil.rmtree(SOURCE)
        for path in (SSHD_DROP_IN, SERVER_CRON):
            path.unlink(missing_ok=True)


def make_old_client(port: int, host_key: Path) -> None:
    """/etc/byteback, a lock that a killed run left, and root's ssh configuration."""
    CONFIGURATION.mkdir()
    key = CONFIGURATION / "key"
    make_key = ["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", ""]
    run_program([*make_key, "-C", "byteback client key", "-f", key])
    (CONFIGURATION / "destination").write_text(f"byteback@{ALIAS}:")
    (CONFIGURATION / "rsync_flags").write_text("--stats\n\n--compress\n")
    lock = Path("/var/lock/byteback/byteback-backup.lock")
    lock.parent.mkdir(exist_ok=True)
    lock.write_text("1")  # the number of some other program by now
    own = make_admin_key().parent
    (own / "config").write_text(
        f"Host {ALIAS}\nHostName 127.0.0.1\nPort {port}\nUser byteback\n"
    )
    line = " ".join(host_key.read_text().split()[:2])
    (own / "known_hosts").write_text(f"[127.0.0.1]:{port} {line}\n")


def make_old_store(user: ServerUser) -> None:
    """Writable snapshots, one of them root's, an old key line, and leftovers."""
    place = user.home / HOST
    place.mkdir()
    run_program(["btrfs", "subvolume", "create", place / "current"])
    page = place / "current" / SOURCE.relative_to("/") / "page"
    page.parent.mkdir(parents=True)
    page.write_text("old")
    run_program(["chown", "-R", f"{user.uid}:{user.gid}", place])
    for name in (*OLD, SAVED):
        snapshot: list[str | Path] = [
            "btrfs",
            "subvolume",
            "snapshot",
            place / "current",
            place / name,
        ]
        as_user = ["setpriv", f"--reuid={user.uid}", "--clear-groups", *snapshot]
        run_program(snapshot if name == OLD[0] else as_user)
    os.chown(place / OLD[0], 0, 0)
    (user.home / ".disk_free_history").write_bytes(b"\x04\b[\x06o:\tFoo")
    (user.home / ".byteback.pruning").touch()
    public = (CONFIGURATION / "key.pub").read_text().strip()
    keys = user.home / ".ssh" / "authorized_keys"
    keys.write_text(
        'command="byteback-receive",from="127.0.0.1",'
        f'environment="BYTEBACK_HOST={HOST}" {public}\n'
        + Path("/root/.ssh/id_ed25519.pub").read_text()
    )
    os.chown(keys, user.uid, user.gid)
    SSHD_DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    SSHD_DROP_IN.write_text("PermitUserEnvironment yes\n")
    SERVER_CRON.write_text("* * * * * byteback byteback-prune --prune\n")


def test_an_old_client_is_served(old_world: OldWorld, tmp_path: Path) -> None:
    for request in ("byteback-receive --ping ", "byteback-receive --ping --verbose"):
        old_world.ask(request)
    old_world.rsync(*PUSH, "--rsync-path", "rsync --fake-super", SOURCE, f"{ALIAS}:")
    old_world.ask("byteback-receive --complete ")
    [new] = {path.name for path in old_world.place.iterdir()} - {*OLD, SAVED, "current"}
    assert commands.is_read_only(old_world.place / new)
    asked = f"byteback-receive --snapshot * --list --all {SOURCE}/pag*"
    listing = old_world.ask(asked).stdout
    assert [word for word in ("current", OLD[-1]) if word in listing]
    # The snapshot is another name for what the server sends: --trust-sender.
    old_world.rsync(
        *PULL,
        *("--trust-sender", "--rsync-path"),
        f"byteback-restore --fake-super --snapshot {OLD[0]}",
        *(f"{ALIAS}:{SOURCE}/page", tmp_path / "to"),
    )
    [page] = (tmp_path / "to").rglob("page")
    assert page.read_text() == "old"
    refused = old_world.ask("restore --fake-super . /x", check=False)
    assert (refused.status != 0, "package" in refused.stderr) == (True, True)


def test_new_programs_take_over(old_world: OldWorld, tmp_path: Path) -> None:
    listed = old_world.run("byteback-prune", "--list").stdout
    assert [name for name in OLD if f"{HOST}/{name}" in listed] == OLD
    assert SAVED not in listed
    old_world.run("byteback-backup", "--source", SOURCE)
    copy = old_world.place / "current" / SOURCE.relative_to("/") / "page"
    assert copy.read_text() == "new"
    old_world.run("byteback-prune", "--prune")
    out = old_world.run("byteback-restore", "--list", "--all", SOURCE / "page").stdout
    assert f"{SOURCE}/page" in out
    words = ("--restore", "--snapshot", OLD[0], "--to")
    old_world.run("byteback-restore", *words, tmp_path / "to", SOURCE / "page")
    assert (tmp_path / "to" / "srv/website/page").read_text() == "old"


def test_set_up_again_makes_the_client_modern(old_world: OldWorld) -> None:
    words = ["--destination", f"byteback@{ALIAS}:", "--hostname", HOST]
    old_world.run("byteback-setup-client", *words)
    line = old_world.key_lines.splitlines()[0]
    program = old_world.bin / "byteback-receive"
    assert line.startswith(f'restrict,command="{program.resolve()} --host {HOST}" ssh-')
    assert len(old_world.key_lines.splitlines()) == 2
    assert (CONFIGURATION / "known_hosts").exists()
    old_world.run("byteback-backup", "--source", SOURCE)
    server = old_world.run("byteback-setup-server", "--no-schedule").stdout
    assert "byteback needs no PermitUserEnvironment" in server


def test_set_up_again_makes_the_server_modern(old_world: OldWorld) -> None:
    words = ["byteback-setup-server", "--no-schedule"]
    place = old_world.place
    said = old_world.run(*words, "--dry-run").stdout
    assert "would:   make 3 snapshots of 1 client read-only" in said
    assert not any(commands.is_read_only(place / name) for name in OLD)
    said = old_world.run(*words).stdout
    assert all(commands.is_read_only(place / name) for name in OLD)
    assert not commands.is_read_only(place / "current")
    assert not commands.is_read_only(place / SAVED)
    assert f"run byteback-setup-client again on {HOST}" in said
    assert f"'{SERVER_CRON}' runs byteback-prune, too" in said
    assert ".disk_free_history" in said
    for name in (".disk_free_history", ".byteback.pruning"):
        (old_world.user.home / name).unlink()
    SERVER_CRON.unlink()
    SSHD_DROP_IN.unlink()
    said = old_world.run(*words).stdout
    assert "found:   no snapshot can be written to" in said
    assert "which admit no client unless sshd has PermitUserEnvironment" in said
    assert "delete that" not in said
    # What is frozen can still be pruned, root's own snapshot too.
    for _ in OLD:
        old_world.run("byteback-prune", "--prune-force")
    assert not any((place / name).exists() for name in OLD)


def test_a_planted_link_is_not_frozen(old_world: OldWorld, tmp_path: Path) -> None:
    elsewhere = old_world.user.home / "elsewhere"
    run_program(["btrfs", "subvolume", "create", elsewhere])
    (old_world.place / "2015-01-01T00:00+0000").symlink_to(elsewhere)
    (old_world.place / "2015-01-02T00:00+0000").mkdir()
    old_world.run("byteback-setup-server", "--no-schedule")
    assert not commands.is_read_only(elsewhere)
