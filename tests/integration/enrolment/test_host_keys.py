"""Which servers are trusted, and how one of them is reached."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.integration.conftest import HOST, USER
from tests.integration.enrolment.server import (
    ETC,
    ROOT_SSH,
    Server,
    fingerprint_of,
    make_key,
    sshd_that,
    talk,
)
from tests.integration.programs import Outcome, run_program


def test_no_on_the_terminal_stops_it(password_server: Server) -> None:
    argv = [*password_server.enrolling, "--hostname", HOST]
    status, shown = talk(argv, [("y/N", "n")])
    assert status == 1, shown
    assert not (ETC / "known_hosts").exists()


def test_known_key_is_asked_for_first(open_server: Server, tmp_path: Path) -> None:
    rsa = make_key(tmp_path / "rsa_key", "-t", "rsa")
    with sshd_that(open_server, tmp_path, f"HostKey {rsa}") as two_keys:
        public = rsa.with_suffix(".pub").read_text()
        known = f"[127.0.0.1]:{two_keys.sshd.port} {public}"
        (ROOT_SSH / "known_hosts").write_text(known)
        assert two_keys.enrol("--hostname", HOST).status == 0
        assert (ETC / "known_hosts").read_text().startswith("127.0.0.1 ssh-rsa ")


def test_unknown_server_without_a_terminal(open_server: Server) -> None:
    outcome = open_server.enrol("--hostname", HOST)
    assert outcome.status == 1
    assert fingerprint_of(open_server.sshd.known_hosts) in outcome.stderr
    assert not (ETC / "destination").exists()


def test_server_in_a_hashed_known_hosts_file(open_server: Server) -> None:
    known = ROOT_SSH / "known_hosts"
    known.write_text(f"rubbish\n{open_server.sshd.known_hosts}\n")
    run_program(["ssh-keygen", "-H", "-f", known], check=False)
    known.write_text(re.sub("(?m)^rubbish$", "@bad line", known.read_text()))
    assert open_server.enrol("--hostname", HOST).status == 0


def test_strict_checking_in_ssh_config(open_server: Server) -> None:
    (ROOT_SSH / "config").write_text("StrictHostKeyChecking yes\n")
    assert open_server.enrol("--hostname", HOST).status == 1
    (ROOT_SSH / "config").write_text("StrictHostKeyChecking accept-new\n")
    assert open_server.enrol("--hostname", HOST).status == 0


@pytest.mark.parametrize("where", ["pinned", "seen"])
def test_changed_host_key_is_never_accepted(open_server: Server, where: str) -> None:
    other = make_key(Path("/root/.ssh/other")).with_suffix(".pub").read_text()
    if where == "pinned":
        ETC.mkdir(mode=0o700)
        (ETC / "known_hosts").write_text(f"127.0.0.1 {other}")
    else:
        name = open_server.sshd.known_hosts.split()[0]
        (ROOT_SSH / "known_hosts").write_text(f"{name} {other}")
    (ROOT_SSH / "config").write_text("StrictHostKeyChecking no\n")
    outcome = open_server.enrol("--accept-new-host-key", "--hostname", HOST)
    assert outcome.status == 1
    assert "HAS CHANGED" in outcome.stderr
    assert open_server.client_lines == []


def test_what_a_changed_host_key_asks_for_works_as_printed(
    open_server: Server, tmp_path: Path
) -> None:
    """The server was installed anew: both programs say how to trust it again."""
    known = ROOT_SSH / "known_hosts"
    known.write_text(f"{open_server.sshd.known_hosts}\nother ssh-ed25519 AAAA\n")
    open_server.enrol_well()
    with sshd_that(open_server, tmp_path) as anew:
        # The new sshd under the old one's address.
        (ROOT_SSH / "config").write_text(f"HostName 127.0.0.1\nPort {anew.sshd.port}\n")
        destination = f"{USER}@vault:"
        key = open_server.sshd.known_hosts.partition(" ")[2]
        (ETC / "destination").write_text(f"{destination}\n")
        (ETC / "known_hosts").write_text(f"vault {key}\n")
        known.write_text(
            f"[127.0.0.1]:{anew.sshd.port} {key}\nother ssh-ed25519 AAAA\n"
        )
        backup: list[str | Path] = [
            open_server.bin / "byteback-backup",
            "-r0",
            "-s/etc/hostname",
        ]
        refused = run_program(backup, check=False)
        assert refused.status == 9
        command = hint_of(refused).partition("only then: ")[2]
        assert "ssh-keygen -R vault" in command
        again = run_program(["sh", "-c", command], check=False)
        assert again.status == 1
        command = hint_of(again).partition("run this again: ")[2]
        assert str(known) in command
        run_program(["sh", "-c", command])
        run_program(
            [open_server.bin / "byteback-setup-client", "--accept-new-host-key"]
        )
        run_program(backup)
    assert known.read_text() == "other ssh-ed25519 AAAA\n"


def test_all_places_of_a_changed_host_key_are_named_at_once(
    open_server: Server,
) -> None:
    other = make_key(Path("/root/.ssh/other")).with_suffix(".pub").read_text()
    name = open_server.sshd.known_hosts.split()[0]
    ETC.mkdir()
    (ETC / "known_hosts").write_text(f"127.0.0.1 {other}")
    (ROOT_SSH / "known_hosts").write_text(f"{name} {other}")
    refused = open_server.enrol("--hostname", HOST)
    assert refused.status == 1
    run_program(["sh", "-c", hint_of(refused).partition("run this again: ")[2]])
    open_server.enrol_well()


def hint_of(outcome: Outcome) -> str:
    return outcome.stderr.partition("\n  hint: ")[2].partition("\n")[0]


def test_alias_with_a_jump_host(open_server: Server) -> None:
    port = open_server.sshd.port
    (ROOT_SSH / "known_hosts").write_text(f"{open_server.sshd.known_hosts}\n")
    (ROOT_SSH / "config").write_text(
        f"Host vault\n  HostName 127.0.0.1\n  Port {port}\n  ProxyJump jump\n"
        f"Host jump\n  HostName 127.0.0.1\n  Port {port}\n  User {USER}\n"
    )
    outcome = run_program(
        [
            *(open_server.bin / "byteback-setup-client", "--hostname", HOST),
            *("--destination", f"{USER}@vault:"),
        ]
    )
    assert f"{USER}@vault:" in outcome.stdout
    assert (ETC / "known_hosts").read_text().startswith("vault ssh-ed25519 ")
