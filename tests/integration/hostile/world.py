"""A server with two clients, one of which has turned hostile, and its ways in."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import shlex
import stat
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.integration.conftest import LIBRARY, ServerUser
from tests.integration.programs import SEARCH_PATH
from tests.waiting import PATIENCE_S, wait_until

HOST = "client.example"
VICTIM = "victim.example"
SECRET = b"CANARY-4f1d: what another client keeps to itself"
SERVER_SECRET = b"CANARY-77aa: what the server keeps to itself"
SECRETS = (SECRET, SERVER_SECRET)
OWN = b"what the client itself backed up"
OLD = b"what the client itself backed up long ago"
SNAPSHOT = "2020-01-02T03:04+0000"
GREETING = 8  # bytes: rsync's protocol version and checksum seed
PAUSE_S = 0.2  # for a receiver to make directories once it has spoken
ANSWER_S = 3.0  # for it to speak
PROOF = Path("/tmp/evil-was-run")
SERVER_TOML = Path("/etc/byteback/server.toml")
BWRAP = Path("/usr/bin/bwrap")

# What stands between the client and the store. With the argument filter they are
# used through sshd; without it, what rsync is told to do goes to the transfer as it is.
FILTERED = ("all", "filter alone")
UNFILTERED = ("all confinement", "landlock alone")

HONEST = "-IlogDtpre.iLsfxCIvu --numeric-ids --inplace"
UNFILTERED_SERVER = """
import os, shlex, sys
sys.path.insert(0, {library!r})
from byteback.server.store import settings
from byteback.server.store.layout import own_store
from byteback.server.transfer import runner
from byteback.server.transfer.rsync_args import ServerCommand
from byteback.system.confinement import bubblewrap, sandbox
kind = os.environ["DEFENCE"]
if kind == "landlock alone":
    bubblewrap.program = lambda: None
words = shlex.split(os.environ["RAW"])[1:]
for option in ("--snapshot", "--all"):
    if option in words:
        at = words.index(option)
        del words[at : at + (2 if option == "--snapshot" else 1)]
store, sends = own_store(), "--sender" in words
directory = store.host_directory({host!r}) if sends else store.current({host!r})
policy = settings.ServerSettings(confinement="off" if kind == "none" else "require")
rights = sandbox.READ if sends else sandbox.WRITE
command = ServerCommand(tuple(words), is_dry_run=False, deletes=False)
sys.exit(runner.run(command, directory, rights, policy, None).status % 256)
"""


@dataclass(frozen=True)
class RsyncOutput:
    """How a session ended, and every byte that the client got."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def all(self) -> bytes:
        """Both streams."""
        return self.stdout + self.stderr


@dataclass
class World:
    """The store, and what the hostile client has to attack it with."""

    store: Path
    user: ServerUser
    port: int
    known_hosts: Path
    key: Path
    workshop: Path  # the client's own directory for evil and loot
    defence: str = "all"
    before: dict[str, tuple[object, ...]] = field(default_factory=dict)

    @property
    def own(self) -> Path:
        """The hostile client's directory in the store."""
        return self.store / HOST

    @property
    def victim(self) -> Path:
        """Another client's."""
        return self.store / VICTIM

    @property
    def loot(self) -> Path:
        """Where the client puts what it gets."""
        return self.workshop / "loot"

    def fill_in(self, text: str) -> str:
        """``text`` with the store's paths, which an attacker is supposed to know."""
        places = {
            "SECRET": self.victim / "current" / "etc" / "secret",
            "STORE": self.store,
            "VICTIM": self.victim,
            "OWN": self.own,
        }
        for word, place in places.items():
            text = text.replace(word, str(place))
        return text.replace("SNAP", SNAPSHOT)

    def ssh_words(self, *options: str) -> list[str]:
        """ssh to the server with the client's real key."""
        return [
            *("ssh", "-F", "none", "-T", "-i", str(self.key), "-p", str(self.port)),
            *("-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "BatchMode=yes"),
            *("-o", "IdentitiesOnly=yes", *options, "byteback@127.0.0.1"),
        ]

    def ssh(
        self,
        command: str | bytes,
        *options: str,
        stdin: bytes = b"",
        timeout_s: float = PATIENCE_S,
        env: dict[str, str] | None = None,
    ) -> RsyncOutput:
        """One session with the client's real key, and what it brought."""
        if isinstance(command, str):
            command = self.fill_in(command).encode()
        return run([*self.ssh_words(*options), "--", command], stdin, timeout_s, env)

    def rsync(self, raw: str, *words: str, cwd: Path | None = None) -> RsyncOutput:
        """The client's rsync, with ``raw`` run at the other end, whatever it would ask.

        ``words`` are for the client's rsync; the remote side is "h:".
        """
        raw = self.fill_in(raw)
        env = {"RAW": raw, "DEFENCE": self.defence}
        argv = [
            "rsync",
            f"--timeout={PATIENCE_S:.0f}",
            "-e",
            str(self.remote_shell()),
            *words,
        ]
        heard = run(argv, env=env, cwd=cwd or self.workshop)
        # A server that did not even start would make any attack seem to fail.
        assert b"Traceback" not in heard.stderr, heard
        return heard

    def say(
        self, raw: str, said: tuple[bytes, ...], between: Path | None = None
    ) -> RsyncOutput:
        """Run ``raw`` at the other end and say all of ``said``, come what may.

        ``between`` is what the other end makes before it is told the rest.
        """
        env = {"RAW": self.fill_in(raw), "DEFENCE": self.defence, "PATH": SEARCH_PATH}
        argv = ["timeout", "-k", "2", f"{PATIENCE_S}", str(self.remote_shell())]
        with (
            tempfile.TemporaryFile() as stdout,
            tempfile.TemporaryFile() as stderr,
            subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr, env=env
            ) as session,
        ):
            assert session.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                for number, part in enumerate(said):
                    if number and between is not None:
                        wait_until(partial(is_there, session, between))
                    elif number:
                        wait_for_an_answer(session, stdout.fileno())
                    session.stdin.write(part)
                    session.stdin.flush()
            with contextlib.suppress(BrokenPipeError):
                session.stdin.close()
            status = session.wait()
            for stream in (stdout, stderr):
                stream.seek(0)
            heard = RsyncOutput(status, stdout.read(), stderr.read())
            assert b"Traceback" not in heard.stderr, heard
            return heard

    def finds_outside(self, content: bytes) -> list[Path]:
        """Files with such content in the store, but for the client's own current."""
        mine = self.own / "current"
        return [
            path
            for path in self.store.rglob("*")
            if not path.is_relative_to(mine)
            and path.is_file()
            and content in path.read_bytes()
        ]

    @property
    def rsync_confines_names(self) -> bool:
        """True if the server's rsync has --confine-root."""
        return b"--confine-root=" in run(["rsync", "--help"]).stdout

    def remote_shell(self) -> Path:
        """A stand-in for ssh's command line that asks for $RAW instead."""
        script = self.workshop / f"rsh-{self.is_filtered}"
        if self.is_filtered:
            line = f'exec {shlex.join(self.ssh_words(*self.shared))} -- "$RAW"'
        else:
            server = self.workshop / "unfiltered.py"
            text = UNFILTERED_SERVER.format(library=str(LIBRARY), host=HOST)
            server.write_text(text)
            line = f"exec runuser -u byteback -- /usr/bin/python3 -I {server}"
        script.write_text(f"#!/bin/sh\n{line}\n")
        script.chmod(0o755)
        return script

    @property
    def is_filtered(self) -> bool:
        """True if the argument filter is on the way."""
        return self.defence in FILTERED

    @property
    def shared(self) -> tuple[str, ...]:
        """Options of ssh: all sessions over one connection, as a client has it."""
        path = self.workshop / "ssh"
        return (
            *("-o", "ControlMaster=auto", "-o", f"ControlPath={path}"),
            *("-o", "ControlPersist=60"),
        )

    def fingerprint(self) -> dict[str, tuple[object, ...]]:
        """Everything in the store but what the client may change.

        That is its own ``current``; and the server's notes about its transfers change.
        """
        mine = self.own / "current"
        volatile = self.store / ".byteback"
        found: dict[str, tuple[object, ...]] = {}
        for directory, names, files in os.walk(self.store, followlinks=False):
            here = Path(directory)
            if here in (mine, volatile):
                names.clear()
                continue
            for name in (".", *files):
                found[str(here / name)] = describe(here / name)
        return found

    def check(self, *heard: RsyncOutput) -> None:
        """Nothing was changed that is not the client's, and nothing got out."""
        before, after = self.before, self.fingerprint()
        if self.defence == "landlock alone":
            # As DESIGN.md says, D6: it stops neither chmod nor setxattr.
            before, after = ({k: v[2:] for k, v in d.items()} for d in (before, after))
        assert after == before, changes(before, after)
        assert not PROOF.exists(), "a program of the client's was run on the server"
        for place in self.own.joinpath("current").rglob("*"):
            mode = place.lstat().st_mode
            assert stat.S_ISREG(mode) or stat.S_ISDIR(mode), place
        loot = b"".join(
            path.read_bytes() for path in self.loot.rglob("*") if path.is_file()
        )
        for secret in SECRETS:
            assert secret not in loot
            assert not any(secret in one.all for one in heard)

    def repair(self) -> None:
        """Put right what Landlock alone let through."""
        for name, wanted in self.before.items():
            if describe(Path(name)) != wanted:
                restore_metadata(Path(name), wanted)

    def check_honest_use(self) -> None:
        """The same client, by the same way, backs up; asked once for each attack.

        With some of the defences away, the test of the liar that says the truth asks.
        """
        if self.defence == "all":
            self.check_honest_backup()

    def check_honest_backup(self) -> None:
        """The same client, by the same way, backs up."""
        source = self.workshop / "honest"
        source.mkdir(exist_ok=True)
        text = os.urandom(16).hex()
        (source / "file").write_text(text)
        pushed = self.rsync(
            f"rsync --fake-super --server {HONEST} . .",
            *("-aI", "--numeric-ids", "--inplace", f"{source}/", "h:honest/"),
        )
        assert pushed.status == 0, pushed
        assert (self.own / "current" / "file").read_text() == text

    def check_honest_restore(self) -> None:
        """The same client, by the same way, gets back what it has."""
        back = self.loot / "back"
        names = "/etc/secret" if self.is_filtered else f"./{SNAPSHOT}/etc/secret"
        pulled = self.rsync(
            f"byteback-restore --fake-super --snapshot {SNAPSHOT} --server --sender "
            f"{HONEST} . {names}",
            *("-aI", "--numeric-ids", "--inplace", "--trust-sender", "h:/x"),
            f"{back}/",
        )
        assert pulled.status == 0, pulled
        assert [path.read_bytes() for path in back.rglob("secret")] == [OLD]


def run(
    argv: Sequence[str | bytes],
    stdin: bytes = b"",
    timeout_s: float = PATIENCE_S,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
) -> RsyncOutput:
    """Run a client's program to its end."""
    done = subprocess.run(
        ["timeout", "-k", "2", str(timeout_s), *argv],
        input=stdin,
        capture_output=True,
        check=False,
        env={"PATH": SEARCH_PATH, "HOME": "/root", **(env or {})},
        cwd=cwd,
    )
    return RsyncOutput(done.returncode, done.stdout, done.stderr)


def wait_for_an_answer(session: subprocess.Popen[bytes], stdout: int) -> None:
    """Until more than the greeting has come and no more comes.

    Or for three seconds after the greeting, for there may be no answer at all. How long
    a busy machine takes to start a session does not count.
    """
    deadline = math.inf
    size = -1
    while time.monotonic() < deadline and session.poll() is None:
        time.sleep(PAUSE_S)
        size, before = os.fstat(stdout).st_size, size
        if size >= GREETING:
            deadline = min(deadline, time.monotonic() + ANSWER_S)
        if size == before and size > GREETING:
            return


def is_there(session: subprocess.Popen[bytes], path: Path) -> bool:
    """True once a session has made ``path``, or has ended and never will."""
    return path.exists() or session.poll() is not None


def describe(path: Path) -> tuple[object, ...]:
    """All that an attack could change about a file."""
    found = path.lstat()
    content = b""
    if stat.S_ISREG(found.st_mode):
        content = hashlib.sha256(path.read_bytes()).digest()
    attributes = {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
    }
    owner = (found.st_uid, found.st_gid)
    if stat.S_ISDIR(found.st_mode):  # its size is the sum of its names' lengths
        return (found.st_mode, attributes, owner, found.st_size)
    times = found.st_mtime_ns
    return (found.st_mode, attributes, owner, found.st_size, times, content)


def restore_metadata(path: Path, wanted: tuple[object, ...]) -> None:
    """Give a file back its mode and attributes."""
    mode, attributes, *_ = wanted
    assert isinstance(mode, int)
    assert isinstance(attributes, dict)
    if path.lstat().st_mode != mode:
        path.chmod(stat.S_IMODE(mode))
    for name in os.listxattr(path, follow_symlinks=False):
        if name not in attributes:
            os.removexattr(path, name, follow_symlinks=False)


def changes(before: dict[str, tuple[object, ...]], after: object) -> str:
    """The names that differ, for the assertion's message."""
    assert isinstance(after, dict)
    names = sorted(
        name for name in {*before, *after} if before.get(name) != after.get(name)
    )
    return f"changed by the attack: {names}"


def has_control_characters(text: bytes) -> bool:
    return any(byte < 32 and byte != 10 for byte in text)
