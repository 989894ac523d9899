"""A server that nobody is enrolled at yet, and what administrators have at hand."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration import conftest
from tests.integration.conftest import HOST, USER, ServerUser, SshServer
from tests.integration.programs import Outcome, require_program, run_program
from tests.waiting import PATIENCE_S

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


def make_key(path: Path, *options: str) -> Path:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    words = ["-t", "ed25519", "-N", "", *options]
    run_program(["ssh-keygen", "-q", *words, "-f", path])
    return path


def owner_and_mode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_uid, status.st_mode & 0o7777


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
        running.wait(PATIENCE_S)


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
    shown, unread, deadline = "", "", time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            new = os.read(terminal, 4096).decode(errors="replace")
        except OSError:  # the program has closed its terminal
            break
        shown, unread = shown + new, unread + new
        if answers and answers[0][0] in unread:
            os.write(terminal, f"{answers.pop(0)[1]}\n".encode())
            unread = ""
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown
