"""Logging in with each means that an administrator may have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from byteback.server.access import authorized_keys
from byteback.server.store.layout import Store
from tests.integration import conftest
from tests.integration.conftest import HOST, USER
from tests.integration.enrolment.server import (
    ETC,
    PASSPHRASE,
    ROOT_SSH,
    Server,
    agent_with,
    askpass,
    fingerprint_of,
    make_key,
    owner_and_mode,
    sshd_that,
    talk,
)
from tests.integration.programs import run_program


def test_forced_administrators_key_enrols_and_does_nothing_else(
    server: Server, tmp_path: Path
) -> None:
    admin = conftest.make_admin_key()
    program = server.bin / "byteback-setup-client-receive"
    line = admin.with_suffix(".pub").read_text()
    assert authorized_keys.add_admin_key(Store(server.store), line, program)
    assert not authorized_keys.add_admin_key(Store(server.store), line, program)
    assert owner_and_mode(server.key_file) == (server.user.uid, 0o600)
    server.enrol_well()
    ssh = ["ssh", "-p", str(server.sshd.port), "-o", "StrictHostKeyChecking=no"]
    where = [*ssh, f"{USER}@127.0.0.1"]
    for command in ("id", "byteback-setup-client-receive --from x y ssh-rsa A", ""):
        refused = run_program([*where, *([command] if command else [])], check=False)
        assert refused.status == 9
        assert refused.stdout == ""
    public = make_key(tmp_path / "other-key").with_suffix(".pub").read_text().strip()
    request = f"byteback-setup-client-receive --json other.example {public}"
    answer = json.loads(run_program([*where, request]).stdout)
    assert (answer["result"], answer["host"]) == ("enrolled", "other.example")


def test_agent(server: Server) -> None:
    key = make_key(Path("/root/.ssh/somewhere"))
    server.let_in(key.with_suffix(".pub"))
    with agent_with(key) as socket:
        key.unlink()
        server.enrol_well(SSH_AUTH_SOCK=socket)
    assert len(server.client_lines) == 1


def test_agent_with_many_keys(server: Server) -> None:
    keys = [make_key(Path(f"/root/.ssh/key-{number}")) for number in range(9)]
    server.let_in(keys[-1].with_suffix(".pub"))
    with agent_with(*keys) as socket:
        server.enrol_well(SSH_AUTH_SOCK=socket)


def test_key_of_another_client_in_the_agent(server: Server) -> None:
    key = make_key(Path("/root/.ssh/other-client"))
    receive = f"{server.bin}/byteback-receive --host other.example"
    server.let_in(key.with_suffix(".pub"), f'restrict,command="{receive}" ')
    with agent_with(key) as socket:
        refused = server.enrol(
            "--accept-new-host-key", "--hostname", HOST, SSH_AUTH_SOCK=socket
        )
        assert refused.status == 9
        assert "can only send backups" in refused.stderr
        server.let_in(conftest.make_admin_key().with_suffix(".pub"))
        server.enrol_well(SSH_AUTH_SOCK=socket)


def test_key_with_a_passphrase(server: Server, tmp_path: Path) -> None:
    key = Path("/root/.ssh/id_ed25519")
    make_key(key, "-N", PASSPHRASE)
    server.let_in(key.with_suffix(".pub"))
    server.enrol_well(SSH_ASKPASS=str(askpass(tmp_path, PASSPHRASE)))


def test_password_by_askpass(password_server: Server, tmp_path: Path) -> None:
    outcome = password_server.enrol("--accept-new-host-key", "--hostname", HOST)
    assert outcome.status == 9
    assert "no terminal" in outcome.stderr
    assert "byteback-setup-server --admin-key" in outcome.stderr
    wrong = askpass(tmp_path, "wrong")
    outcome = password_server.enrol("--hostname", HOST, SSH_ASKPASS=str(wrong))
    assert outcome.status == 9
    assert "permission denied" in outcome.stderr
    assert not (ETC / "destination").exists()
    right = askpass(tmp_path, PASSPHRASE)
    password_server.enrol_well(SSH_ASKPASS=str(right))


def test_password_and_fingerprint_on_the_terminal(password_server: Server) -> None:
    argv = [*password_server.enrolling, "--hostname", HOST]
    status, shown = talk(
        argv, [("y/N", "y"), ("password:", "wrong"), ("password:", PASSPHRASE)]
    )
    assert status == 0, shown
    assert fingerprint_of(password_server.sshd.known_hosts) in shown
    assert PASSPHRASE not in shown
    assert "is now the client" in shown


def test_enrolled_by_hand_and_no_password(password_server: Server) -> None:
    """Nobody needs a login on the server where its root has taken the key."""
    argv = [*password_server.enrolling, "--hostname", HOST]
    status, shown = talk(argv, [("y/N", "y"), ("password:", "")])
    assert status == 9, shown
    assert "byteback-setup-server --admin-key" in shown
    key = (ETC / "key.pub").read_text().strip()
    assert password_server.receive(HOST, key).status == 0
    status, shown = talk(argv, [])
    assert status == 0, shown
    assert "is already the client" in shown
    assert "password" not in shown


@pytest.mark.parametrize(
    ("answer", "words"),
    [(PASSPHRASE, "brought up to date"), ("", "line there is still the old tool's")],
)
def test_an_old_line_is_worth_a_password(
    server: Server, tmp_path: Path, answer: str, words: str
) -> None:
    """The machine's key works, and the line that it stands in can be better."""
    key = make_key(ETC / "key").with_suffix(".pub")
    options = f'command="byteback-receive",environment="BYTEBACK_HOST={HOST}" '
    server.let_in(key, options)
    command = f"mkdir ~/{HOST}; btrfs -q su cr ~/{HOST}/current"
    run_program(["su", USER, "-c", command])
    lines = ("PasswordAuthentication yes", "PermitUserEnvironment yes")
    with sshd_that(server, tmp_path, *lines) as old:
        argv = [*old.enrolling, "--hostname", HOST]
        status, shown = talk(argv, [("y/N", "y"), ("password:", answer)])
    assert status == 0, shown
    assert words in shown


def test_a_locked_key_is_left_locked_where_the_machines_own_works(
    server: Server,
) -> None:
    key = make_key(ROOT_SSH / "id_ed25519", "-N", PASSPHRASE)
    server.let_in(key.with_suffix(".pub"))
    argv = [*server.enrolling, "--hostname", HOST]
    status, shown = talk(argv, [("y/N", "y"), ("Passphrase", PASSPHRASE)])
    assert status == 0, shown
    status, shown = talk(argv, [])
    assert status == 0, shown
    assert "Passphrase" not in shown


def test_questions_of_the_servers_own(server: Server, tmp_path: Path) -> None:
    lines = ("UsePAM yes", "KbdInteractiveAuthentication yes")
    with sshd_that(server, tmp_path, *lines) as asking:
        asking.enrol_well(SSH_ASKPASS=str(askpass(tmp_path, PASSPHRASE)))


def test_key_and_password_together(open_server: Server, tmp_path: Path) -> None:
    # Two factors for everybody: the administrator gets in, and the machine's own key,
    # which must do alone, is found out before anything is remembered.
    lines = ("PasswordAuthentication yes", "AuthenticationMethods publickey,password")
    with sshd_that(open_server, tmp_path, *lines) as asking:
        outcome = asking.enrol(
            *("--accept-new-host-key", "--hostname", HOST),
            SSH_ASKPASS=str(askpass(tmp_path, PASSPHRASE)),
        )
        assert len(asking.client_lines) == 1
        assert outcome.status == 9
        assert "own key alone" in outcome.stderr
        assert not (ETC / "destination").exists()


def test_password_after_keys_that_cost_patience(server: Server, tmp_path: Path) -> None:
    lines = ("PasswordAuthentication yes", "MaxAuthTries 2")
    keys = [make_key(Path(f"/root/.ssh/key-{number}")) for number in range(2)]
    with sshd_that(server, tmp_path, *lines) as strict, agent_with(*keys) as socket:
        program = str(askpass(tmp_path, PASSPHRASE))
        strict.enrol_well(SSH_ASKPASS=program, SSH_AUTH_SOCK=socket)


def test_key_that_stands_for_another_client(
    open_server: Server, tmp_path: Path
) -> None:
    """The server may know the key from a file that is not the store's."""
    key = make_key(Path("/root/.ssh/client")).with_suffix(".pub").read_text().split()
    assert open_server.receive("other.example", *key).status == 0
    mine = make_key(ETC / "key").with_suffix(".pub").read_text()
    receive = f"{conftest.LIBRARY}/bin/byteback-receive --host other.example"
    elsewhere = Path("/etc/ssh/more_keys")
    elsewhere.write_text(f'restrict,command="{receive}" {mine}')
    lines = f"AuthorizedKeysFile {elsewhere} .ssh/authorized_keys"
    with sshd_that(open_server, tmp_path, lines) as confused:
        outcome = confused.enrol("--accept-new-host-key", "--hostname", HOST)
    elsewhere.unlink()
    assert outcome.status == 9
    assert "'other.example', not of" in outcome.stderr
    assert not (ETC / "destination").exists()


def test_keys_of_whoever_called_sudo(server: Server, tmp_path: Path) -> None:
    home = Path("/home/alice")
    run_program(["useradd", "--create-home", "--home-dir", home, "alice"])
    try:
        key = make_key(home / ".ssh" / "id_ed25519")
        server.let_in(key.with_suffix(".pub"))
        (home / ".ssh" / "known_hosts").write_text(f"{server.sshd.known_hosts}\n")
        assert server.enrol("--hostname", HOST, SUDO_USER="alice").status == 0
    finally:
        run_program(["userdel", "--remove", "alice"])
