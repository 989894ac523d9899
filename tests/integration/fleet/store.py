"""A store with clients that have keys, and sessions of theirs over a real sshd."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.integration.conftest import STORE_MARK, ServerUser, SshServer
from tests.integration.programs import Outcome, run_program
from tests.integration.sealing.store import SealedStore

PING = ("byteback-receive", "--ping")


class FleetStore(SealedStore):
    """A sealed store, its clients' keys, and byteback-clients."""

    def __init__(
        self, user: ServerUser, programs: Path, sshd: SshServer, keys: Path
    ) -> None:
        super().__init__(user, programs)
        self.programs = programs
        self.keys = keys
        self.sshd = sshd
        keys.joinpath("known_hosts").write_text(f"{sshd.known_hosts}\n")

    def clients(self, *words: str | Path, stdin: str = "", status: int = 0) -> Outcome:
        """byteback-clients as root, which is to end with ``status``."""
        argv = [self.programs / "byteback-clients", *words]
        outcome = run_program(argv, check=False, stdin=stdin)
        assert outcome.status == status, outcome
        return outcome

    def enrol(self, host: str, key: str | None = None) -> str:
        """Make ``host`` a client with a new key; the public key."""
        public = self.make_key(key or host)
        program = self.programs / "byteback-setup-client-receive"
        run_program([program, host, *public.split()])
        return public

    def make_key(self, name: str) -> str:
        """A new key pair of that name; the public one."""
        path = self.keys / name
        run_program(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path])
        return Path(f"{path}.pub").read_text().strip()

    @staticmethod
    def run(argv: list[str | Path], stdin: str = "") -> Outcome:
        """A program that may fail."""
        return run_program(argv, check=False, stdin=stdin)

    def session(self, key: str, *words: str, stdin: str = "") -> Outcome:
        """One session with a key, as the real sshd serves it."""
        return run_program([*self.ssh(key), *(words or PING)], check=False, stdin=stdin)

    def ssh(self, key: str) -> list[str | Path]:
        """The words of an ssh to the server with a key."""
        options = [
            *("-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-F", "none"),
            *("-o", f"UserKnownHostsFile={self.keys / 'known_hosts'}"),
        ]
        place = ["-p", str(self.sshd.port), "-i", str(self.keys / key)]
        return ["ssh", *options, *place, f"{self.user.name}@127.0.0.1"]

    def fingerprint(self, key: str) -> str:
        """A key's, as ssh-keygen tells it."""
        path = self.keys / f"{key}.pub"
        return run_program(["ssh-keygen", "-l", "-f", path]).stdout.split()[1]

    def forget(self) -> None:
        """Take away what root keeps outside of the store."""
        shutil.rmtree(STORE_MARK.parent, ignore_errors=True)
