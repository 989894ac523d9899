"""Backups that do not reach the server say why; what ssh_config can undo is undone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.conftest import HOST, USER
from tests.integration.enrolment.server import (
    ETC,
    ROOT_SSH,
    Server,
    make_key,
    sshd_that,
)
from tests.integration.programs import Outcome, run_program

SSHRC = Path("/etc/ssh/sshrc")
NOLOGIN = Path("/etc/nologin")


@pytest.fixture
def client(open_server: Server) -> Server:
    """The server at which this machine is enrolled."""
    open_server.enrol_well()
    return open_server


def back_up(server: Server, *words: str) -> Outcome:
    program = server.bin / "byteback-backup"
    return run_program([program, "--retry-number", "0", *words], check=False)


@contextmanager
def written(path: Path, text: str) -> Iterator[None]:
    """A file that is there for the length of the block."""
    path.write_text(text)
    try:
        yield
    finally:
        path.unlink()


def test_ssh_config_cannot_come_between_a_request_and_its_answer(
    client: Server,
) -> None:
    source = Path("/etc/what-to-back-up")
    for line in (
        *("StdinNull yes", "ForkAfterAuthentication yes", "SessionType none"),
        *("SessionType subsystem", "PubkeyAuthentication no", "RequestTTY force"),
        *("RemoteCommand id", "Tunnel yes"),
    ):
        source.write_text(line)
        with written(ROOT_SSH / "config", f"{line}\n"):
            outcome = back_up(client, "--source", str(source))
            assert outcome.status == 0, (line, outcome)
            copy = client.store / HOST / "current" / source.relative_to("/")
            assert copy.read_text() == line
            # The introduction is a library's, but the proof is ssh's.
            (ROOT_SSH / "id_ed25519").rename(ROOT_SSH / "away")
            again = client.enrol()
            (ROOT_SSH / "away").rename(ROOT_SSH / "id_ed25519")
            assert again.status == 0, (line, again)


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        ("HostKeyAlgorithms rsa-sha2-256", 12, "no matching host key type found"),
        ("Ciphers 3des-cbc", 12, "no matching cipher found"),
        # Whichever end of the connection ssh sees first.
        ("ProxyCommand false", 12, "Connection closed by|Broken pipe"),
        ("HostName no-such-host.invalid", 12, "Could not resolve hostname"),
        ("NoSuchKeyword yes", 2, "Bad configuration option: nosuchkeyword"),
    ],
)
def test_ssh_gives_its_reason(
    client: Server, line: str, status: int, reason: str
) -> None:
    with written(ROOT_SSH / "config", f"{line}\n"):
        outcome = back_up(client, "--source", "/etc/hostname")
    assert outcome.status == status
    assert re.search(reason, outcome.stderr)
    assert "\n  hint: " in outcome.stderr


@pytest.mark.parametrize("uses_pam", ["yes", "no"])
def test_a_server_that_lets_no_user_in(
    client: Server, tmp_path: Path, uses_pam: str
) -> None:
    words = "This machine is being moved."
    with sshd_that(client, tmp_path, f"UsePAM {uses_pam}") as server:
        move_to(server)
        assert back_up(server, "--source", "/etc/hostname").status == 0
        with written(NOLOGIN, f"{words}\n"):
            for outcome in (
                back_up(server, "--source", "/etc/hostname"),
                server.enrol("--accept-new-host-key"),
            ):
                assert outcome.status in (9, 12), outcome
                assert words in outcome.stderr
                assert "\n  hint: " in outcome.stderr
                assert "signal" not in outcome.stderr


def test_an_account_that_has_expired(client: Server, tmp_path: Path) -> None:
    with sshd_that(client, tmp_path, "UsePAM yes") as server:
        move_to(server)
        run_program(["chage", "--expiredate", "1", USER])
        outcome = back_up(server, "--source", "/etc/hostname")
        assert outcome.status == 12
        assert "account has expired" in outcome.stderr
        assert "account has expired" in server.enrol("--accept-new-host-key").stderr
        command = outcome.stderr.partition("on the server: ")[2].partition("\n")[0]
        run_program(["sh", "-c", command])
        assert back_up(server, "--source", "/etc/hostname").status == 0


def test_a_server_that_prints_is_named(client: Server) -> None:
    run_program(["usermod", "--shell", "/bin/bash", USER])  # which reads .bashrc
    listing: list[str | Path] = [client.bin / "byteback-restore", "/etc/hostname"]
    assert back_up(client, "--source", "/etc/hostname").status == 0
    for path in (SSHRC, client.store / ".bashrc"):
        for text in ("echo Welcome here", "printf 'Welcome here '"):
            with written(path, f"{text}\n"):
                for outcome in (
                    back_up(client, "--source", "/etc/hostname"),
                    back_up(client, "--source", "/etc/hostname", "--compress=none"),
                    client.enrol(),
                    run_program(listing, check=False),
                ):
                    assert outcome.status == 9, outcome
                    assert "prints text of its own" in outcome.stderr
                    assert "'Welcome here'" in outcome.stderr
                    assert str(path.name) in outcome.stderr
        with written(path, "echo Welcome here >&2\n"):
            assert back_up(client, "--source", "/etc/hostname").status == 0


@pytest.mark.parametrize("shell", ["/usr/sbin/nologin", "/bin/false"])
def test_a_shell_that_runs_nothing(client: Server, shell: str) -> None:
    run_program(["usermod", "--shell", shell, USER])
    for outcome in (back_up(client, "--source", "/etc/hostname"), client.enrol()):
        assert outcome.status in (9, 13)
        assert "failed with status 1" in outcome.stderr or (
            "ended the session with status 1" in outcome.stderr
        )
        assert "byteback-setup-server" in outcome.stderr
    # As the hint says.
    directory = str(client.store)
    set_up: list[str | Path] = [
        client.bin / "byteback-setup-server",
        "--directory",
        directory,
    ]
    run_program([*set_up, "--no-schedule"])
    assert back_up(client, "--source", "/etc/hostname").status == 0


def test_only_the_pinned_key_is_believed(client: Server, tmp_path: Path) -> None:
    """A command of ssh_config that knows another key does not count."""
    pinned = (ETC / "known_hosts").read_text()
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text().split()
    (ETC / "known_hosts").write_text(f"127.0.0.1 {' '.join(other[:2])}\n")
    line = f"KnownHostsCommand /bin/echo {pinned}"
    with written(ROOT_SSH / "config", line):
        outcome = back_up(client, "--source", "/etc/hostname")
    assert outcome.status == 9
    assert "not the one that was pinned" in outcome.stderr


def move_to(server: Server) -> None:
    """Have this machine's backups go to the same store by another sshd."""
    key = server.sshd.known_hosts.partition(" ")[2]
    (ETC / "destination").write_text(f"{server.destination}\n")
    (ETC / "known_hosts").write_text(f"127.0.0.1 {key}\n")
