"""A store with clients that have keys, and sessions of theirs over a real sshd."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from byteback.model.key_line import format_client_line
from byteback.model.public_key import PublicKey
from byteback.server.accounting import ledger_clients, ledger_file
from byteback.server.fleet import notes
from byteback.server.store import change
from tests.integration.conftest import STORE_MARK, ServerUser, SshServer
from tests.integration.programs import Outcome, run_program
from tests.integration.sealing.store import CONTENT, SealedStore, become
from tests.waiting import PATIENCE_S, wait_until

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
        with become(self.user):
            (self.root / host / "current" / "etc").mkdir(exist_ok=True)
            (self.root / host / "current" / "etc" / "file").write_bytes(CONTENT)
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

    @contextlib.contextmanager
    def held_connection(self, key: str) -> Iterator[list[str | Path]]:
        """An open connection of a client's: the words of an ssh with sessions on it."""
        with self.invited_connection(key) as shared:
            assert self.run([*shared, *PING]).status == 0
            yield shared

    @contextlib.contextmanager
    def invited_connection(self, key: str) -> Iterator[list[str | Path]]:
        """The same of a key that may not be a client's."""
        socket = Path(f"/run/{key}.socket")
        shared = [*self.ssh(key), "-o", f"ControlPath={socket}"]
        program, *words = map(str, shared)
        master = subprocess.Popen([program, "-M", "-N", *words])
        try:
            wait_until(socket.exists, f"no connection with the key {key}")
            yield shared
        finally:
            master.terminate()
            master.wait(PATIENCE_S)

    @contextlib.contextmanager
    def silent_push(self, key: str) -> Iterator[subprocess.Popen[bytes]]:
        """A transfer that waits for its client, who says nothing."""
        argv = "rsync --fake-super --server -logDtpre.iLsfxCIvu --timeout=600 . ."
        session = subprocess.Popen(
            [*map(str, self.ssh(key)), argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            assert session.stdout is not None
            assert session.stdout.read(4)  # rsync's version: it is there
            yield session
        finally:
            session.kill()
            session.communicate()

    def fingerprint(self, key: str) -> str:
        """A key's, as ssh-keygen tells it."""
        path = self.keys / f"{key}.pub"
        return run_program(["ssh-keygen", "-l", "-f", path]).stdout.split()[1]

    def snapshots_of(self, host: str) -> list[Path]:
        """A client's snapshots, the oldest first."""
        return sorted((self.root / host).glob("2*"))

    def record(self, host: str) -> None:
        """Leave one row in each table of the ledger, and each of the notes."""
        now = time.time()
        with contextlib.closing(sqlite3.connect(self.ledger)) as ledger, ledger:
            for statement in ledger_file.SCHEMA.split(";\n"):
                ledger.execute(statement)
            for words in (
                "transfer (host, address, kind, started) VALUES (?, '', 'pull', ?)",
                "snapshot (host, name, made, incomplete) VALUES (?, 'x', ?, 0)",
                "approval (host, time) VALUES (?, ?)",
                "deletion (host, name, time) VALUES (?, 'x', ?)",
                "baseline (host, measured) VALUES (?, ?)",
            ):
                ledger.execute(f"INSERT OR REPLACE INTO {words}", (host, now))
        notes_ = self.root / ".byteback" / "hosts"
        notes_.mkdir(exist_ok=True)
        made = [notes_ / f"{host}{ending}" for ending in notes.ENDINGS]
        for path in made:
            if path.suffix not in (".retired", ".moving"):  # which keep it out
                path.write_text(f"{path.suffix} of {host}")
        for path in (self.ledger, notes_, *notes_.iterdir()):
            os.chown(path, self.user.uid, self.user.gid)

    def let_in(self, host: str) -> None:
        """Add a line for a key of the client's, which nobody has."""
        blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + os.urandom(32)
        key = PublicKey("ssh-ed25519", blob)
        line = format_client_line(key, host, self.programs / "byteback-receive", {})
        path = self.root / ".ssh" / "authorized_keys"
        with path.open("ab") as file:
            file.write(line + b"\n")
        os.chown(path, self.user.uid, self.user.gid)

    def keys_of(self, host: str) -> int:
        """How many keys are let in as that client."""
        text = (self.root / ".ssh" / "authorized_keys").read_text()
        return text.count(f'--host {host}"')

    def rows_of(self, host: str) -> int:
        """How many rows the ledger has of a client."""
        count = 0
        if not self.ledger.exists():
            return 0
        with contextlib.closing(sqlite3.connect(self.ledger)) as ledger:
            for table in ledger_clients.TABLES:
                query = f"SELECT COUNT(*) FROM {table} WHERE host = ?"  # noqa: S608 # ours
                (number,) = ledger.execute(query, (host,)).fetchone()
                count += number
        return count

    def traces_of(self, host: str) -> list[str]:
        """All that is left of a client, but for locks and the note of its old key."""
        found = [str(p) for p in self.root.iterdir() if p.name == host]
        left = [f"{host}{ending}" for ending in notes.ENDINGS]
        names = {p.name for p in (self.root / ".byteback" / "hosts").iterdir()}
        found += sorted(names.intersection(left))
        if self.keys_of(host):
            found.append("a key")
        if self.rows_of(host):
            found.append("rows in the ledger")
        if change.PATH.exists():
            found.append("the record of a change")
        return found

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.root / ".byteback" / "ledger.sqlite"

    def forget(self) -> None:
        """Take away what root keeps outside of the store."""
        shutil.rmtree(STORE_MARK.parent, ignore_errors=True)
