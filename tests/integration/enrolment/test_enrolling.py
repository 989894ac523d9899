"""Enrolling over a real sshd, once, again, in part and under another name."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.integration import conftest
from tests.integration.conftest import HOST, USER
from tests.integration.enrolment.server import (
    ETC,
    ROOT_SSH,
    Server,
    make_key,
    owner_and_mode,
)
from tests.integration.programs import run_program
from tests.waiting import PATIENCE_S


def test_one_command_makes_a_client(open_server: Server) -> None:
    outcome = open_server.enrol_well()
    assert "byteback-backup --verbose" in outcome.stdout
    assert (ETC / "destination").read_text() == f"{open_server.destination}\n"
    assert (ETC / "hostname").read_text() == f"{HOST}\n"
    assert owner_and_mode(ETC) == (0, 0o755)
    assert owner_and_mode(ETC / "key") == (0, 0o600)
    public = (ETC / "key.pub").read_text().strip()
    receive = f"{conftest.LIBRARY}/bin/byteback-receive --host {HOST}"
    assert open_server.client_lines == [f'restrict,command="{receive}" {public}']
    key = open_server.sshd.known_hosts.partition(" ")[2]
    assert (ETC / "known_hosts").read_text() == f"127.0.0.1 {key}\n"
    current = open_server.store / HOST / "current"
    assert current.stat().st_ino == 256
    assert current.stat().st_uid == open_server.user.uid
    assert owner_and_mode(open_server.key_file) == (open_server.user.uid, 0o600)


def test_running_it_again_changes_nothing(open_server: Server) -> None:
    open_server.enrol_well()
    before = open_server.key_file.read_bytes()
    files = {path: path.read_bytes() for path in ETC.iterdir()}
    again = run_program([open_server.bin / "byteback-setup-client"])
    assert "already" in again.stdout
    assert open_server.key_file.read_bytes() == before
    assert {path: path.read_bytes() for path in ETC.iterdir()} == files


def test_without_a_login_an_enrolled_client_is_left_alone(open_server: Server) -> None:
    open_server.enrol_well()
    (ROOT_SSH / "id_ed25519").unlink()
    outcome = open_server.enrol_well()
    assert "already" in outcome.stdout


def test_another_user_has_no_store(open_server: Server, tmp_path: Path) -> None:
    """With --login ALICE, alice's home would become a store that nobody prunes."""
    key = make_key(tmp_path / "client").with_suffix(".pub").read_text().strip()
    program = open_server.bin / "byteback-setup-client-receive"
    run_program(["useradd", "--create-home", "alice"])
    try:
        argv: list[str | Path] = ["runuser", "-u", "alice", "--", program, HOST, key]
        refused = run_program(argv, check=False)
        assert refused.status == 9
        assert "--login root" in refused.stderr
        assert not Path("/home/alice/.byteback").exists()
    finally:
        run_program(["userdel", "--remove", "alice"])
    assert open_server.receive(HOST, key).status == 0


def test_lost_key_needs_the_administrators_word(open_server: Server) -> None:
    open_server.enrol_well()
    before = open_server.client_lines
    (ETC / "key").unlink()
    refused = open_server.enrol("--hostname", HOST)
    assert refused.status == 9
    assert "--replace-key" in refused.stderr
    assert open_server.client_lines == before
    outcome = open_server.enrol_well("--replace-key")
    assert "again, with a new key" in outcome.stdout
    assert len(open_server.client_lines) == 1
    assert open_server.client_lines != before


def test_newcomer_gets_no_history(open_server: Server) -> None:
    open_server.enrol_well()
    (open_server.store / HOST / "current" / "secret").touch()
    open_server.key_file.write_text(
        "".join(f"{x}\n" for x in open_server.key_lines if "--host" not in x)
    )
    assert open_server.enrol("--hostname", HOST).status == 9
    assert open_server.client_lines == []


def test_interrupted_enrolment_is_finished(open_server: Server) -> None:
    (open_server.store / HOST).mkdir()
    os.chown(open_server.store / HOST, open_server.user.uid, open_server.user.gid)
    open_server.enrol_well()
    open_server.key_file.write_text(
        "".join(f"{x}\n" for x in open_server.key_lines if "--host" not in x)
    )
    open_server.enrol_well()
    assert len(open_server.client_lines) == 1


def test_old_line_is_modernised(open_server: Server) -> None:
    key = make_key(ETC / "key", "-t", "rsa", "-C", "byteback client key")
    options = 'command="byteback-receive",from="127.0.0.1",environment='
    open_server.let_in(key.with_suffix(".pub"), f'{options}"BYTEBACK_HOST={HOST}" ')
    run_program(["su", USER, "-c", f"mkdir ~/{HOST}; btrfs -q su cr ~/{HOST}/current"])
    outcome = open_server.enrol_well()
    assert "brought up to date" in outcome.stdout
    assert len(open_server.client_lines) == 1
    assert len(open_server.key_lines) == 2
    assert "from=" not in open_server.key_file.read_text()


def test_renamed_machine_keeps_its_old_key(open_server: Server) -> None:
    open_server.enrol_well()
    old = (ETC / "key").read_bytes()
    (ETC / "own-hostname").write_text("before.example\n")
    asked = open_server.enrol()
    assert asked.status == 2
    assert "was enrolled as" in asked.stderr
    assert open_server.enrol("--hostname", "new.example").status == 0
    assert (ETC / f"key.{HOST}").read_bytes() == old
    assert (ETC / "key").read_bytes() != old
    assert len(open_server.client_lines) == 2
    assert (ETC / "hostname").read_text() == "new.example\n"


def test_server_by_hand(server: Server) -> None:
    key = make_key(Path("/root/.ssh/client")).with_suffix(".pub").read_text().split()
    done = server.receive("--from", "192.0.2.0/24", HOST, *key[:2], "--odd", "comment")
    assert done.stdout.startswith("byteback ")
    assert f" enrolled {HOST} with key SHA256:" in done.stdout
    assert 'from="192.0.2.0/24" ' in server.client_lines[0]
    assert (server.store / HOST).stat().st_uid == server.user.uid
    assert server.receive("other.example", *key).status == 9
    assert server.receive("../x", *key).status == 2
    assert server.receive(HOST, "restrict", *key).status == 2
    assert server.receive("--from", 'x"', HOST, *key).status == 2


def test_many_at_once_lose_no_line(server: Server) -> None:
    program = server.bin / "byteback-setup-client-receive"
    keys = {}
    for number in range(12):
        path = make_key(Path(f"/root/.ssh/key-{number}"))
        keys[f"host-{number % 10}"] = path.with_suffix(".pub").read_text().split()
    others = [make_key(Path(f"/root/.ssh/late-{n}")) for n in range(2)]
    words = [[name, *key] for name, key in keys.items()]
    words += [["host-0", *x.with_suffix(".pub").read_text().split()] for x in others]
    running = [
        subprocess.Popen(
            [program, *one], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for one in words
    ]
    statuses = sorted(one.wait(PATIENCE_S) for one in running)
    assert statuses == [0] * 10 + [9] * 2  # a name goes to the first who comes
    assert len(server.client_lines) == 10
    assert len(set(server.key_lines)) == len(server.key_lines) == 10


def test_key_added_by_hand_goes_when_told_to(open_server: Server) -> None:
    open_server.enrol_well()
    second = make_key(Path("/root/.ssh/second")).with_suffix(".pub")
    receive = f"{conftest.LIBRARY}/bin/byteback-receive --host {HOST}"
    open_server.let_in(second, f'restrict,command="{receive}" ')
    open_server.enrol_well()
    assert len(open_server.client_lines) == 2
    open_server.enrol_well("--replace-key")
    assert len(open_server.client_lines) == 1
    assert (ETC / "key.pub").read_text().strip() in open_server.client_lines[0]


def test_addresses_are_kept_until_told_otherwise(server: Server) -> None:
    key = make_key(Path("/root/.ssh/client")).with_suffix(".pub").read_text().split()
    for words, address in (
        (("--from", "192.0.2.7"), "192.0.2.7"),
        ((), "192.0.2.7"),
        (("--from", "2001:db8::/32,192.0.2.*"), "2001:db8::/32,192.0.2.*"),
    ):
        assert server.receive(*words, HOST, *key).status == 0
        assert len(server.key_lines) == 1
        assert f'from="{address}" ' in server.key_lines[0]


def test_only_root_can_set_up(open_server: Server) -> None:
    command = f"byteback-setup-client --destination {open_server.destination}"
    outcome = run_program(["su", USER, "-c", command], check=False)
    assert outcome.status == 2
    assert "only root" in outcome.stderr


def test_names_that_differ_by_case_only_are_one_client(
    open_server: Server, tmp_path: Path
) -> None:
    open_server.enrol_well()
    lines = open_server.client_lines
    outcome = open_server.enrol("--hostname", HOST.upper())
    assert outcome.status == 0, outcome
    assert f"already the client {HOST} of" in outcome.stdout
    assert open_server.client_lines == lines
    assert (ETC / "hostname").read_text() == f"{HOST}\n"
    # Another machine of that name is another machine.
    key = make_key(tmp_path / "other").with_suffix(".pub").read_text().strip()
    refused = open_server.receive(HOST.upper(), *key.split())
    assert refused.status == 9
    assert f"the name '{HOST}' belongs to another key" in refused.stderr
    # Even a machine that has never heard the name as the server has it.
    for left in (ETC / "hostname", ETC / "own-hostname"):
        left.unlink()
    outcome = open_server.enrol("--hostname", HOST.upper())
    assert outcome.status == 0, outcome
    assert (ETC / "hostname").read_text() == f"{HOST}\n"
    names = {path.name for path in open_server.store.iterdir()}
    assert HOST.upper() not in names
