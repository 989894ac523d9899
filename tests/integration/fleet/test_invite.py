"""byteback-clients invite: a word enrols one machine, once, without a login."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from base64 import b64decode
from collections.abc import Callable, Iterator

import pytest

from byteback.model.invitation import Word, format_word, parse_word
from byteback.model.public_key import PublicKey
from tests.integration.conftest import CONFIGURATION, free_port, wait_for_port
from tests.integration.fleet.store import FleetStore
from tests.integration.hostile.test_audit import listening
from tests.integration.programs import Outcome, require_program, run_program
from tests.waiting import PATIENCE_S

ENROL = "byteback-setup-client-receive"
MACHINES = int(os.environ.get("BYTEBACK_TEST_MACHINES", "4"))
OWN_CONFIGURATION = """
mount -t tmpfs -o mode=755 tmpfs /etc/byteback && exec "$@"
"""


class Inviting(FleetStore):
    """A store that invites, and machines that come by invitation."""

    def invite(self, *words: str) -> str:
        host_key = self.keys / "host.pub"
        host_key.write_text(" ".join(self.sshd.known_hosts.split()[1:]))
        shown = self.clients("invite", "--host-key", host_key, *words)
        word = shown.stdout.strip()
        assert f"--invitation {word}" in shown.stderr
        return word

    def key_of(self, word: str, name: str) -> str:
        """The invitation's own key, for ssh to use; its name."""
        path = self.keys / name
        path.write_text(parse_word(word).private_key)
        path.chmod(0o600)
        return name

    def set_up(self, *words: str, stdin: str = "") -> Outcome:
        """byteback-setup-client on this machine, with no login at hand."""
        place = f"ssh://{self.user.name}@127.0.0.1:{self.sshd.port}/"
        program = self.programs / "byteback-setup-client"
        options = ["--destination", place, "--no-schedule"]
        return self.run([program, *options, *words], stdin=stdin)

    def lines(self) -> list[str]:
        path = self.root / ".ssh" / "authorized_keys"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def inviting(store: FleetStore) -> Iterator[Inviting]:
    made = Inviting(store.user, store.programs, store.sshd, store.keys)
    yield made
    for path in CONFIGURATION.iterdir():
        if path.name != "server.toml":
            path.unlink() if path.is_file() else shutil.rmtree(path)
    shutil.rmtree("/root/.ssh", ignore_errors=True)


def test_the_log_says_by_which_invitation(inviting: Inviting) -> None:
    with listening() as log:
        key = inviting.key_of(inviting.invite("www"), "word")
        public = inviting.make_key("new")
        assert inviting.session(key, f"{ENROL} other {public}").status == 9
        assert inviting.session(key, f"{ENROL} www {public}").status == 0
        lines = {line.verdict: line for line in log.lines()}
    numbers = [
        lines[verdict].fields["invitation"]
        for verdict in ("INVITE", "REFUSED", "ENROL")
    ]
    assert len(set(numbers)) == 1


def test_a_word_enrols_once(inviting: Inviting) -> None:
    word = inviting.invite()
    done = inviting.set_up("--hostname", "new.example", "--invitation", word)
    assert done.status == 0, done
    assert "is now the client new.example of" in done.stdout
    assert (inviting.root / "new.example" / "current").is_dir()
    # The line of the invitation went, and the client's came; its word is nowhere.
    (line,) = inviting.lines()
    assert '--host new.example"' in line
    pinned = (CONFIGURATION / "known_hosts").read_text()
    assert inviting.sshd.known_hosts.split()[2] in pinned
    backup = inviting.programs / "byteback-backup"
    run_program([backup, "--source", "/etc/hostname"])
    # The same machine again: an answer that was lost, say.
    again = inviting.set_up(
        "--hostname", "new.example", "--invitation", "-", stdin=word
    )
    assert again.status == 0, again
    assert "already the client new.example" in again.stdout
    # Another one gets nothing, and is told nothing but that.
    shutil.rmtree(CONFIGURATION)
    inviting.settings("sealed = true\n")
    refused = inviting.set_up("--hostname", "other", "--invitation", word)
    assert refused.status == 9, refused
    assert "does not take this invitation" in refused.stderr
    assert len(inviting.lines()) == 1
    assert not (inviting.root / "other").exists()


def test_for_one_name(inviting: Inviting) -> None:
    inviting.enrol("taken")
    word = inviting.invite("www.example")
    key = inviting.keys / "host.pub"
    refused = inviting.clients("invite", "--host-key", key, "Taken", status=9)
    assert "is taken" in refused.stderr
    refused = inviting.set_up("--hostname", "taken2", "--invitation", word)
    assert refused.status == 9, refused
    assert "is for the client 'www.example'" in refused.stderr
    assert not (inviting.root / "taken2").exists()
    done = inviting.set_up("--hostname", "WWW.example", "--invitation", word)
    assert done.status == 0, done


def test_open_and_withdrawn(inviting: Inviting) -> None:
    word = inviting.invite("--valid", "30m", "www")
    (line,) = inviting.clients("invite", "--open").stdout.splitlines()
    number = line.split()[0]
    assert line.endswith("  www")
    before = inviting.lines()
    inviting.clients("invite", "--withdraw", number, "-n")
    inviting.clients("invite", "-n", "--host-key", inviting.keys / "host.pub", "x")
    assert inviting.lines() == before
    inviting.clients("invite", "--withdraw", number)
    assert inviting.clients("invite", "--open").stdout == ""
    refused = inviting.set_up("--hostname", "www", "--invitation", word)
    assert refused.status == 9, refused
    assert "no open" in inviting.clients("invite", "--withdraw", "x", status=10).stderr
    for wrong in ("0d", "8", "1y"):
        assert inviting.clients("invite", "--valid", wrong, status=2).stderr


def test_another_server_is_offered_nothing(inviting: Inviting) -> None:
    """One that answers in the server's place gets neither the key nor a name."""
    made = parse_word(inviting.invite())
    other = Word(made.secret, made.host_key_type, bytes(16))
    tried = inviting.sshd.log.read_text().count("publickey")
    refused = inviting.set_up("--hostname", "www", "--invitation", format_word(other))
    assert refused.status == 1, refused
    assert "is not the server that made this invitation" in refused.stderr
    assert inviting.sshd.log.read_text().count("publickey") == tried
    assert not (CONFIGURATION / "known_hosts").exists()
    for typed in ("nonsense", format_word(made)[:-1]):
        refused = inviting.set_up("--hostname", "www", "--invitation", typed)
        assert refused.status == 2
        assert typed not in refused.stderr


def test_its_key_can_do_nothing_else(inviting: Inviting) -> None:
    inviting.enrol("victim")
    (inviting.root / "victim" / "current" / "secret").write_text("of the victim")
    key = inviting.key_of(inviting.invite(), "invited")
    public = inviting.make_key("thief")
    before = inviting.lines()
    for asked in (
        "byteback-receive --list /secret",
        "rsync --fake-super --server --sender -logDtpre.iLsfxCIvu . .",
        f"{ENROL} --replace-key victim {public}",
        f"{ENROL} victim {public}",
        f"{ENROL} --forced victim {public}",
        f"{ENROL} ../x {public}",
        f"{ENROL}; id",
        "/bin/sh",
    ):
        refused = inviting.session(key, asked)
        assert refused.status not in (0, 255), (asked, refused)
        assert "of the victim" not in refused.stdout
        assert inviting.lines() == before, asked
    assert inviting.session("victim").status == 0
    # The control: the word still serves, for what it is for.
    assert inviting.session(key, f"{ENROL} honest {public}").status == 0
    assert inviting.session(key, f"{ENROL} more {inviting.make_key('x')}").status == 255


def test_used_and_over(inviting: Inviting) -> None:
    """On connections held open; and by sshd itself, which tells no difference."""
    used = inviting.key_of(inviting.invite(), "used")
    over = inviting.key_of(inviting.invite(), "over")
    keys = [inviting.make_key(name) for name in ("one", "two", "three")]
    with inviting.invited_connection(used) as held:
        assert inviting.run([*held, f"{ENROL} first {keys[0]}"]).status == 0
        again = inviting.run([*held, f"{ENROL} second {keys[1]}"])
        assert again.status == 9, again
        assert "was used, or is over" in again.stderr
    with inviting.invited_connection(over) as held:
        path = inviting.root / ".ssh" / "authorized_keys"
        text = path.read_text()
        (line,) = [one for one in text.splitlines() if "--invited" in one]
        token = line.split("--invited ")[1].split('"')[0]
        number, _, name = token.split(":")
        late = f"{number}:{int(time.time()) - 1}:{name}"
        path.write_text(text.replace(token, late))
        refused = inviting.run([*held, f"{ENROL} third {keys[2]}"])
        assert refused.status == 9, refused
    assert not (inviting.root / "second").exists()
    assert not (inviting.root / "third").exists()
    # sshd's own limit: the same answer as to a key that was never there.
    path.write_text(path.read_text().replace('expiry-time="2', 'expiry-time="1'))
    inviting.make_key("unknown")
    said = [inviting.session(key, ENROL) for key in ("over", "used", "unknown")]
    assert {one.status for one in said} == {255}
    assert len({one.stderr.replace(str(inviting.keys), "") for one in said}) == 1


def test_many_at_once_each_once(inviting: Inviting) -> None:
    """Twelve machines with four words: each word enrols one of them."""
    words = [inviting.invite() for _ in range(4)]
    keys = [inviting.key_of(word, f"invited{n}") for n, word in enumerate(words)]
    public = [inviting.make_key(f"machine{n}") for n in range(12)]
    running = [
        subprocess.Popen(
            [*map(str, inviting.ssh(keys[n % 4])), f"{ENROL} m{n} {public[n]}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for n in range(12)
    ]
    done = [process.wait() for process in running]
    assert done.count(0) == 4
    lines = inviting.lines()
    assert len(lines) == 4
    winners = {f"m{n}" for n, status in enumerate(done) if status == 0}
    assert {line.split("--host ")[1].split('"')[0] for line in lines} == winners
    assert {n % 4 for n, status in enumerate(done) if status == 0} == {0, 1, 2, 3}


def test_the_fingerprint_is_the_servers_own(inviting: Inviting) -> None:
    word = parse_word(inviting.invite())
    kind, blob = inviting.sshd.known_hosts.split()[1:3]
    assert word.is_of(PublicKey(kind, b64decode(blob)))


def test_many_machines_set_themselves_up(inviting: Inviting) -> None:
    """Real set-ups, each with its own /etc/byteback, where sshd takes few at once."""
    names = [f"m{number}.example" for number in range(MACHINES)]
    words = [inviting.invite(name) for name in names]
    with crowded_sshd(inviting) as (port, make_way):
        place = f"ssh://{inviting.user.name}@127.0.0.1:{port}/"
        program = inviting.programs / "byteback-setup-client"
        running = [
            subprocess.Popen(
                [
                    *("unshare", "--mount", "sh", "-c", OWN_CONFIGURATION, "sh"),
                    *(str(program), "--destination", place, "--hostname", name),
                    *("--invitation", word, "--no-schedule"),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for name, word in zip(names, words, strict=True)
        ]
        make_way()
        said = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * MACHINES, said
    assert inviting.clients("invite", "--open").stdout == ""
    listed = inviting.clients("list").stdout
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [
        [name, "active"] for name in sorted(names)
    ]


@contextlib.contextmanager
def crowded_sshd(store: FleetStore) -> Iterator[tuple[int, Callable[[], None]]]:
    """Another sshd, which takes no more connections until a call makes way.

    The call waits until it has turned one away.
    """
    program = require_program("sshd")
    port = free_port()
    lines = store.sshd.log.with_name("sshd_config").read_text().splitlines()
    kept = [x for x in lines if x.split()[0] not in ("Port", "MaxStartups", "PidFile")]
    configuration = store.keys / "sshd_config"
    configuration.write_text(
        "\n".join([*kept, f"Port {port}", "MaxStartups 2", "PidFile none", ""])
    )
    log = store.keys / "sshd.log"
    server = subprocess.Popen([program, "-D", "-f", configuration, "-E", log])
    silent: list[socket.socket] = []

    def make_way() -> None:
        deadline = time.monotonic() + PATIENCE_S
        # "past MaxStartups", or "Maxstartups" since OpenSSH 9.8
        dropped = re.compile("drop connection .* maxstartups", re.IGNORECASE)
        while not dropped.search(log.read_text()):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        for one in silent:
            one.close()

    try:
        wait_for_port(port, server, log)
        silent += [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
        yield port, make_way
    finally:
        server.terminate()
        server.wait(PATIENCE_S)
