"""Enrolling over a real sshd, with each means that an administrator may have."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from byteback.server import authorized_keys
from byteback.server.store import Store
from tests.integration import conftest
from tests.integration.conftest import HOST, USER, ServerUser, SshServer
from tests.integration.programs import Outcome, require_program, run_program

ETC = conftest.CONFIGURATION
ROOT_SSH = Path("/root/.ssh")
PASSPHRASE = "correct horse"  # noqa: S105 # the tests' own


@dataclass(frozen=True)
class Server:
    """A store that nobody is enrolled at, behind a real sshd."""

    user: ServerUser
    sshd: SshServer
    bin: Path

    @property
    def store(self) -> Path:
        return self.user.home

    @property
    def destination(self) -> str:
        return f"ssh://{USER}@127.0.0.1:{self.sshd.port}/"

    @property
    def key_lines(self) -> list[str]:
        return self.key_file.read_text().splitlines()

    @property
    def client_lines(self) -> list[str]:
        return [line for line in self.key_lines if "--host" in line]

    @property
    def key_file(self) -> Path:
        return self.store / ".ssh" / "authorized_keys"

    def let_in(self, public_key: Path, options: str = "") -> None:
        """Append a line to authorized_keys, as an administrator would."""
        with self.key_file.open("a") as file:
            file.write(f"{options}{public_key.read_text()}")
        os.chown(self.key_file, self.user.uid, self.user.gid)

    @property
    def enrolling(self) -> list[str | Path]:
        """The command that sets up a client of this server."""
        return [self.bin / "byteback-setup-client", "--destination", self.destination]

    def enrol(self, *words: str, **env: str) -> Outcome:
        """Run it without a terminal."""
        return run_program([*self.enrolling, *words], check=False, env=env)

    def enrol_well(self, *words: str, **env: str) -> Outcome:
        """The same, trusting the server, and it must succeed."""
        outcome = self.enrol("--accept-new-host-key", "--hostname", HOST, *words, **env)
        assert outcome.status == 0, outcome
        return outcome

    def receive(self, *words: str) -> Outcome:
        """Run the server's part by hand, as root."""
        program = self.bin / "byteback-setup-client-receive"
        return run_program([program, *words], check=False)


@pytest.fixture
def server(
    server_user: ServerUser, installed: Path, sshd: SshServer
) -> Iterator[Server]:
    conftest.forget_client()
    yield Server(server_user, sshd, installed)
    conftest.forget_client()


@pytest.fixture
def open_server(server: Server) -> Server:
    """One where the administrator's default key opens a shell."""
    server.let_in(conftest.make_admin_key().with_suffix(".pub"))
    return server


class Chatterer(socketserver.BaseRequestHandler):
    """A service that is no sshd."""

    def handle(self) -> None:
        self.request.sendall(b"220 mail.example ESMTP\r\n")


def make_key(path: Path, *options: str) -> Path:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    words = ["-t", "ed25519", "-N", "", *options]
    run_program(["ssh-keygen", "-q", *words, "-f", path])
    return path


def owner_and_mode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_uid, status.st_mode & 0o7777


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
    again = run_program([open_server.bin / "byteback-setup-client", "--hostname", HOST])
    assert "already" in again.stdout
    assert open_server.key_file.read_bytes() == before
    assert {path: path.read_bytes() for path in ETC.iterdir()} == files


def test_without_a_login_an_enrolled_client_is_left_alone(open_server: Server) -> None:
    open_server.enrol_well()
    (ROOT_SSH / "id_ed25519").unlink()
    outcome = open_server.enrol_well()
    assert "already" in outcome.stdout


def test_forced_administrators_key_enrols_and_does_nothing_else(server: Server) -> None:
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
    public = make_key(Path("/tmp/other-key")).with_suffix(".pub").read_text().strip()
    request = f"byteback-setup-client-receive --json other.example {public}"
    answer = json.loads(run_program([*where, request]).stdout)
    assert (answer["result"], answer["host"]) == ("enrolled", "other.example")
    for path in Path("/tmp").glob("other-key*"):
        path.unlink()


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
    status, shown = talk(argv, [("password:", "")])
    assert status == 0, shown
    assert "is already the client" in shown


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


def test_no_on_the_terminal_stops_it(password_server: Server) -> None:
    argv = [*password_server.enrolling, "--hostname", HOST]
    status, shown = talk(argv, [("y/N", "n")])
    assert status == 1, shown
    assert not (ETC / "known_hosts").exists()


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


def test_known_key_is_asked_for_first(open_server: Server, tmp_path: Path) -> None:
    rsa = make_key(tmp_path / "rsa_key", "-t", "rsa")
    with sshd_that(open_server, tmp_path, f"HostKey {rsa}") as two_keys:
        public = rsa.with_suffix(".pub").read_text()
        known = f"[127.0.0.1]:{two_keys.sshd.port} {public}"
        (ROOT_SSH / "known_hosts").write_text(known)
        assert two_keys.enrol("--hostname", HOST).status == 0
        assert (ETC / "known_hosts").read_text().startswith("127.0.0.1 ssh-rsa ")


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
    statuses = sorted(one.wait(60) for one in running)
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


def test_clear_words_for_a_server_that_is_not_there(server: Server) -> None:
    conftest.make_admin_key()
    program = server.bin / "byteback-setup-client"
    listener = socketserver.TCPServer(("127.0.0.1", 0), Chatterer)
    not_ssh = listener.server_address[1]
    threading.Thread(target=listener.handle_request, daemon=True).start()
    for destination, words in (
        (f"ssh://{USER}@127.0.0.1:{conftest.free_port()}/", "refused the connection"),
        (f"{USER}@no-such-host.invalid:", "there is no host"),
        (f"ssh://{USER}@127.0.0.1:{not_ssh}/", "does not speak ssh"),
    ):
        options = ("--hostname", HOST, "--destination", destination)
        outcome = run_program([program, *options], check=False)
        assert outcome.status == 12
        assert words in outcome.stderr
    listener.server_close()


def test_clear_words_for_a_server_without_byteback(open_server: Server) -> None:
    program = conftest.LAUNCHERS / "byteback-setup-client-receive"
    target = program.readlink()
    program.unlink()
    try:
        outcome = open_server.enrol("--accept-new-host-key", "--hostname", HOST)
    finally:
        program.symlink_to(target)
    assert outcome.status == 10
    assert "not installed" in outcome.stderr


def test_clear_words_for_a_server_of_the_old_tool(open_server: Server) -> None:
    # It takes the first word for the host's name whatever it looks like.
    programs = {
        "byteback-setup-client-receive": """
            [ -n "$SSH_CONNECTION" ] || exit 1
            mkdir ~/"$1" && host=$1 && shift || exit 1
            options="command=\\"byteback-receive\\",environment=\\"BYTEBACK_HOST=$host\\""
            echo "$options $*" >>~/.ssh/authorized_keys
            echo "Create subvolume './$host/current'" """,
        "byteback-receive": """
            [ "$SSH_ORIGINAL_COMMAND" = "byteback-receive --ping" ] && exit 0
            echo "byteback-receive failed" >&2; exit 9""",
    }
    with replaced_programs(programs):
        outcome = open_server.enrol("--accept-new-host-key", "--hostname", HOST)
    assert outcome.status == 9
    assert "upgrade the byteback package on the server first" in outcome.stderr
    assert not (ETC / "destination").exists()
    made = {path.name for path in open_server.store.iterdir()}
    assert made == {HOST, ".ssh", ".byteback"}


@pytest.mark.parametrize(
    ("mode", "words"),
    [(0o755, "must be on btrfs"), (0o555, "cannot write to the store")],
)
def test_clear_words_for_an_unusable_store(
    open_server: Server, mode: int, words: str
) -> None:
    run_program(["mount", "-t", "tmpfs", "none", open_server.store])
    try:
        open_server.key_file.parent.mkdir(mode=0o700)
        open_server.let_in(ROOT_SSH / "id_ed25519.pub")
        for path in (open_server.store, open_server.key_file.parent):
            os.chown(path, open_server.user.uid, open_server.user.gid)
        open_server.store.chmod(mode)
        outcome = open_server.enrol("--accept-new-host-key", "--hostname", HOST)
        assert outcome.status == 10
        assert words in outcome.stderr
        assert open_server.client_lines == []
        assert not (open_server.store / HOST).exists()
    finally:
        run_program(["umount", open_server.store])


def test_only_root_can_set_up(open_server: Server) -> None:
    command = f"byteback-setup-client --destination {open_server.destination}"
    outcome = run_program(["su", USER, "-c", command], check=False)
    assert outcome.status == 1
    assert "only root" in outcome.stderr


@contextmanager
def sshd_that(server: Server, directory: Path, *lines: str) -> Iterator[Server]:
    """The same store behind another sshd, whose configuration begins with ``lines``."""
    program = require_program("sshd")
    hashed = run_program(["openssl", "passwd", "-6", PASSPHRASE]).stdout.strip()
    run_program(["usermod", "--password", hashed, USER])
    host_key = make_key(directory / "host_key")
    port = conftest.free_port()
    configuration = directory / "sshd_config"
    conftest.write_sshd_configuration(program, configuration, host_key, port)
    # sshd takes the first value that it reads for a keyword.
    configuration.write_text("\n".join([*lines, configuration.read_text()]))
    log = directory / "log"
    running = subprocess.Popen([program, "-D", "-f", configuration, "-E", log])
    try:
        conftest.wait_for_port(port, running, log)
        public = host_key.with_suffix(".pub").read_text().strip()
        sshd = SshServer(port, f"[127.0.0.1]:{port} {public}", log)
        yield Server(server.user, sshd, server.bin)
    finally:
        running.terminate()
        running.wait(10)


@pytest.fixture
def password_server(server: Server, tmp_path: Path) -> Iterator[Server]:
    """One whose sshd takes the store user's password."""
    with sshd_that(server, tmp_path, "PasswordAuthentication yes") as with_passwords:
        yield with_passwords


@contextmanager
def replaced_programs(programs: dict[str, str]) -> Iterator[None]:
    """Shell scripts in the place of installed programs."""
    targets = {name: (conftest.LAUNCHERS / name).readlink() for name in programs}
    try:
        for name, script in programs.items():
            path = conftest.LAUNCHERS / name
            path.unlink()
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
        yield
    finally:
        for name, target in targets.items():
            (conftest.LAUNCHERS / name).unlink()
            (conftest.LAUNCHERS / name).symlink_to(target)


@contextmanager
def agent_with(*keys: Path) -> Iterator[str]:
    shown = run_program(["ssh-agent", "-s"]).stdout
    socket, pid = re.findall(r"SSH_(?:AUTH_SOCK|AGENT_PID)=([^;]+);", shown)
    try:
        run_program(["ssh-add", "-q", *keys], env={"SSH_AUTH_SOCK": socket})
        yield socket
    finally:
        os.kill(int(pid), signal.SIGTERM)


def askpass(directory: Path, answer: str) -> Path:
    program = directory / "askpass"
    program.write_text(f"#!/bin/sh\necho '{answer}'\n")
    program.chmod(0o755)
    return program


def fingerprint_of(known_hosts: str) -> str:
    shown = run_program(["ssh-keygen", "-l", "-f", "-"], stdin=known_hosts).stdout
    return shown.split()[1]


def talk(argv: list[str | Path], answers: list[tuple[str, str]]) -> tuple[int, str]:
    """Run a program on a terminal of its own, and answer when it asks."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(argv[0], [os.fspath(word) for word in argv])  # noqa: S606 # the aim
    shown, unread, deadline = "", "", time.monotonic() + 60
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            new = os.read(terminal, 4096).decode()
        except OSError:  # the program has closed its terminal
            break
        shown, unread = shown + new, unread + new
        if answers and answers[0][0] in unread:
            os.write(terminal, f"{answers.pop(0)[1]}\n".encode())
            unread = ""
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown
