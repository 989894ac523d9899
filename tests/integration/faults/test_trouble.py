"""Trouble by an administrator, an attacker or a full disc: one sentence each."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.faults.parts import NAME, start_sshd
from tests.integration.faults.trees import read_state
from tests.integration.faults.world import HOSTS, World, write_files
from tests.integration.programs import Outcome, run_program
from tests.waiting import PATIENCE_S

MEBI = 1 << 20


def assert_told_once(outcome: Outcome, words: str) -> None:
    """One message on standard error, with those words in its first line."""
    assert outcome.stdout == ""
    lines = outcome.stderr.splitlines()
    assert lines[0].startswith("byteback-backup: ")
    assert words in lines[0], outcome.stderr
    assert all(line.startswith("  ") for line in lines[1:]), outcome.stderr
    assert "Traceback" not in outcome.stderr


@contextlib.contextmanager
def changed(path: Path, content: bytes | None) -> Iterator[None]:
    """A file with other content, or away, for the length of the block."""
    before = path.read_bytes() if path.exists() else None
    status = path.stat() if path.exists() else None
    try:
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        yield
    finally:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(before)
            assert status is not None
            path.chmod(status.st_mode & 0o7777)
            os.chown(path, status.st_uid, status.st_gid)


def test_a_key_that_was_revoked(world: World) -> None:
    keys = world.store / ".ssh/authorized_keys"
    with changed(keys, b""):
        outcome = world.backup(expect=9)
    assert_told_once(outcome, "does not take this machine's key")
    assert "byteback-setup-client" in outcome.stderr


def test_a_host_key_that_changed_is_refused_loudly(world: World) -> None:
    directory = world.sshd_configuration.parent
    write_files(world.source, [10])
    other = directory / "other_key"
    run_program(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other])
    try:
        with changed(directory / "host_key", other.read_bytes()):
            restart_sshd(world)
            outcome = world.backup(expect=9)
    finally:
        other.unlink()
        restart_sshd(world)
    assert_told_once(outcome, "is not the one that was pinned at set-up")
    assert "another machine" in outcome.stderr
    world.backup()


def restart_sshd(world: World) -> None:
    world.stop_sshd()
    world.sshd = start_sshd(world.sshd_configuration)


def test_a_host_name_that_is_gone_from_the_dns(world: World) -> None:
    text = HOSTS.read_text().replace(NAME, "another.test")
    with changed(HOSTS, text.encode()):
        outcome = world.backup(expect=12, retries=1, delay_s=0)
    assert_told_once(outcome, "cannot reach 'byteback@backup.test:' (after 2 attempts)")
    assert "Could not resolve hostname" in outcome.stderr


def test_a_server_without_an_ssh_server(world: World) -> None:
    world.stop_sshd()
    try:
        outcome = world.backup(expect=12, retries=1, delay_s=0)
    finally:
        world.sshd = start_sshd(world.sshd_configuration)
    assert_told_once(outcome, "cannot reach")
    assert "Connection refused" in outcome.stderr


def test_a_server_that_comes_back_from_its_reboot_in_time(world: World) -> None:
    write_files(world.source, [10])
    world.stop_sshd()
    try:
        running = world.start("--verbose", retries=20)
        running.wait_for_words("attempt 1 of 21 failed")
    finally:
        world.sshd = start_sshd(world.sshd_configuration)
    assert running.finish().status == 0
    assert len(world.snapshots()) == 1


def test_a_busy_server_is_asked_again(world: World) -> None:
    write_files(world.source, [10])
    settings = world.configuration / "server.toml"
    text = settings.read_text() + "max_transfers = 1\n"
    with changed(settings, text.encode()):
        holder = take_place(world, 0)
        outcome = world.backup(expect=75, retries=0)
        assert_told_once(outcome, "the server is busy")
        running = world.start("--verbose", retries=20)
        running.wait_for_words("attempt 1 of 21 failed")
        holder.kill()
        holder.wait(PATIENCE_S)
        assert running.finish().status == 0


def take_place(world: World, number: int) -> subprocess.Popen[bytes]:
    """Hold one of the server's places for transfers, as the store's user."""
    path = world.store / f".byteback/slots/{number}.lock"
    user = [f"--reuid={world.user.uid}", f"--regid={world.user.gid}", "--clear-groups"]
    as_user = ["setpriv", *user]
    run_program([*as_user, "mkdir", "--parents", path.parent])
    hold = ["flock", "--no-fork", str(path), "sleep", "300"]
    holder = subprocess.Popen([*as_user, *hold])
    world.wait_for("server", "=sleep")
    return holder


def test_a_full_server(world: World) -> None:
    write_files(world.source, [24 * MEBI])
    ballast = world.store / "ballast"
    fill_disc(ballast, leaving=12 * MEBI)
    try:
        outcome = world.backup(expect=75, retries=1, delay_s=0)
        assert_told_once(outcome, "byteback-backup: busy: ")
        assert "No space left on device" in outcome.stderr
        assert world.snapshots() == []
    finally:
        ballast.unlink()
        run_program(["btrfs", "filesystem", "sync", world.store])
    # As soon as something was pruned, all is well again.
    world.backup()
    assert read_state(world.current) == read_state(world.source)


def fill_disc(ballast: Path, *, leaving: int) -> None:
    with ballast.open("wb") as file:
        for size in (256 * MEBI, 32 * MEBI, MEBI):
            with contextlib.suppress(OSError):
                while free_bytes(ballast) > leaving + size:
                    end = file.seek(0, os.SEEK_END)
                    os.posix_fallocate(file.fileno(), end, size)


def free_bytes(path: Path) -> int:
    view = os.statvfs(path)
    return view.f_bavail * view.f_frsize


@pytest.mark.parametrize(
    ("name", "content", "status", "words"),
    [
        (
            "destination",
            b"",
            10,
            "no destination: '/etc/byteback/destination' is empty",
        ),
        ("destination", None, 10, "'/etc/byteback/destination' is missing"),
        ("destination", b"\0\1\2", 2, "'/etc/byteback/destination' is no text file"),
        ("destination", b"a b\n", 2, "'/etc/byteback/destination': 'a b' is no dest"),
        ("io_timeout", b"soon\n", 2, "'/etc/byteback/io_timeout' holds 'soon'"),
        ("io_timeout", b"\xff\xfe", 2, "'/etc/byteback/io_timeout' is no text file"),
        ("excludes", b"a\0b", 2, "'/etc/byteback/excludes' is no text file"),
        ("rsync_filter", b"\0", 2, "'/etc/byteback/rsync_filter' is no text file"),
        ("rsync_filter", b"nonsense x\n", 13, "syntax or usage error"),
        ("rsync_flags", b"'", 2, "'/etc/byteback/rsync_flags': No closing quotation"),
        ("rsync_flags", b"--nonsense", 13, "syntax or usage error"),
        ("rsync_flags", b"--backup", 9, "is not allowed here"),
        ("key", b"", 10, "the key '/etc/byteback/key' is empty"),
        ("key", None, 10, "this machine has no key"),
        ("key", b"\0\1\2", 10, "the key '/etc/byteback/key' is damaged"),
        ("known_hosts", b"", 9, "'/etc/byteback/known_hosts' does not hold it"),
        ("known_hosts", b"\0\1\2", 9, "'/etc/byteback/known_hosts' does not hold it"),
        ("server.toml", b"\0\1", 9, "server could not do this"),
        ("server.toml", b"confinment = 'require'\n", 9, "server could not do this"),
    ],
)
def test_a_configuration_file_that_is_wrong(
    world: World, name: str, content: bytes | None, status: int, words: str
) -> None:
    with changed(world.configuration / name, content):
        outcome = world.backup(expect=status, retries=1)
    assert_told_once(outcome, words)
    world.assert_nothing_left()


def test_a_misspelt_key_of_the_servers_stops_no_backup(world: World) -> None:
    write_files(world.source, [10])
    settings = world.configuration / "server.toml"
    words = b"snapshot_interval_hours = 0\nmax_transfer = 3\n"
    server = ["nsenter", "--net=/run/netns/server"]
    with changed(settings, words):
        world.backup()
        world.let_time_pass()
        outcome = run_program([*server, "byteback-prune", "--prune"], check=False)
        assert outcome.status == 2
        assert "unknown key 'max_transfer' in server.toml" in outcome.stderr
        assert (
            "unknown key 'max_transfer'"
            in run_program([*server, "byteback-setup-server", "--no-schedule"]).stdout
        )
    assert len(world.snapshots()) == 1
    assert run_program([*server, "byteback-prune", "--prune"]).status == 0


def test_empty_optional_files_say_nothing(world: World) -> None:
    write_files(world.source, [10])
    with contextlib.ExitStack() as stack:
        for name in ("io_timeout", "excludes", "rsync_filter", "rsync_flags"):
            stack.enter_context(changed(world.configuration / name, b""))
        outcome = world.backup()
    assert (outcome.stdout, outcome.stderr) == ("", "")


def test_a_server_that_lost_what_it_kept(world: World) -> None:
    write_files(world.source, [10, 100])
    world.backup()
    for file in (world.store / ".byteback").rglob("*"):
        if file.is_file():
            file.write_bytes(b"\0" * 100)
    world.let_time_pass()
    (world.source / "new").write_text("new")
    world.backup()
    assert len(world.snapshots()) == 2
    # current is made anew from the newest snapshot.
    run_program(["btrfs", "subvolume", "delete", world.host / "current"])
    world.let_time_pass()
    world.backup()
    assert read_state(world.current) == read_state(world.source)
