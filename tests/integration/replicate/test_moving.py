"""A client moves from one server to another, and follows by itself (D60)."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import (
    CHECKOUT,
    CONFIGURATION,
    INTERPRETER,
    LIBRARY,
    free_port,
    wait_for_port,
    write_sshd_configuration,
)
from tests.integration.programs import Outcome, require_program, run_program
from tests.integration.replicate.world import NAME, USER, First, Second
from tests.waiting import PATIENCE_S

CLIENT = "client.example"
SOURCE = Path("/srv/moving")
KILLED = -9
# Ends itself before the first step in which the given word occurs.
KILLER = f"""
import os, runpy, signal, sys
sys.path.insert(0, {str(LIBRARY)!r})
word = sys.argv.pop(1)
def hear(event, args):
    if event in ("os.rename", "os.remove"):
        text = os.fspath(args[1] if event == "os.rename" else args[0])
    elif event == "subprocess.Popen":
        text = str(args[1][-1])
    else:
        return
    if word in text:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hear)
program = __import__("byteback.cli." + sys.argv[1], fromlist=["main"])
sys.argv[:2] = ["byteback"]
program.main()
"""


@dataclass(frozen=True)
class World:
    """Two servers, this machine as a client of the first, and the second one's sshd."""

    first: First
    second: Second
    port: int
    host_key: Path

    @property
    def new(self) -> str:
        """The second server as its clients reach it."""
        return f"ssh://{USER}@localhost:{self.port}/"

    @property
    def destination(self) -> str:
        """Where this machine backs up to."""
        return (CONFIGURATION / "destination").read_text().strip()

    def write(self, text: str) -> None:
        (SOURCE / "file").write_text(text)

    def back_up(self, *words: str, status: int = 0) -> str:
        """A backup of this machine; what it says."""
        program = self.first.programs / "byteback-backup"
        given = ["--retry-number=0", "--compress=none", "--source", str(SOURCE)]
        found = run_program([program, *given, *words], check=False)
        assert found.status == status, found
        return found.stderr

    def content(self, root: Path) -> str:
        return (root / CLIENT / "current" / "srv/moving/file").read_text()

    def move(self, *words: str) -> str:
        where = ("--destination", self.new)
        return self.first.clients("move", *where, *words, CLIENT, NAME).stdout

    def accept(self, *words: str, status: int = 0) -> Outcome:
        given = ("--accept", "--host-key", str(self.host_key))
        return self.second.replicate(*given, *words, status=status)

    def standing(self, program: Outcome) -> str | None:
        for one in json.loads(program.stdout)["clients"]:
            if one["name"] == CLIENT:
                return str(one["standing"])
        return None

    @property
    def at_first(self) -> str | None:
        return self.standing(self.first.clients("list", "--json"))

    @property
    def at_second(self) -> str | None:
        return self.standing(self.second.program("byteback-clients", "list", "--json"))


@pytest.fixture(scope="module")
def enrolled(
    servers: tuple[First, Second], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """This machine backs up to the first server, which has a week of it."""
    first, second = servers
    place = tmp_path_factory.mktemp("second-sshd")
    program = require_program("sshd")
    host_key, configuration = place / "host_key", place / "sshd_config"
    run_program(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", host_key])
    public = second.etc / "host_key.pub"  # where the user there can read it
    shutil.copy(host_key.with_suffix(".pub"), public)
    port, log = free_port(), place / "log"
    write_sshd_configuration(program, configuration, host_key, port)
    argv = second.inside(program, "-D", "-f", configuration, "-E", log)
    server = subprocess.Popen(list(map(str, argv)))
    try:
        wait_for_port(port, server, log)
        world = World(first, second, port, Path("/etc/host_key.pub"))
        own = first.sshd.log.parent / "host_key.pub"
        word = first.clients("invite", "--host-key", own, CLIENT).stdout.strip()
        run_program(
            [
                *(first.programs / "byteback-setup-client", "--hostname", CLIENT),
                *("--invitation", word, "--destination"),
                f"ssh://{USER}@127.0.0.1:{first.sshd.port}/",
            ]
        )
        SOURCE.mkdir()
        world.write("at the first")
        world.back_up()
        for days in (7, 2):
            first.snapshot(CLIENT, days)
        yield world
    finally:
        shutil.rmtree(SOURCE, ignore_errors=True)
        server.terminate()
        server.wait(PATIENCE_S)


@pytest.fixture
def world(enrolled: World) -> Iterator[World]:
    """The client is at the first server again after each test."""
    kept = {
        name: (CONFIGURATION / name).read_bytes()
        for name in ("destination", "known_hosts")
    }
    yield enrolled
    for name, content in kept.items():
        (CONFIGURATION / name).write_bytes(content)
    (CONFIGURATION / "follow_moves").unlink(missing_ok=True)
    enrolled.first.clients("move", "--undo", CLIENT)
    if enrolled.at_second is not None:
        enrolled.second.program("byteback-clients", "remove", "--yes", CLIENT)


def history(root: Path) -> list[str]:
    return sorted(path.name for path in (root / CLIENT).glob("2*"))


def is_sealed(path: Path) -> bool:
    return path.stat().st_uid == 0


@pytest.fixture
def sealing(world: World) -> Iterator[Callable[[], None]]:
    """Only the first server seals, until the second is told to."""
    own = CONFIGURATION / "server.toml"
    other = world.second.etc / "byteback" / "server.toml"
    before = {path: path.read_text() for path in (own, other)}

    def seal(path: Path, word: str) -> None:
        lines = before[path].splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith("sealed")]
        path.write_text(f"sealed = {word}\n{''.join(kept)}")

    seal(own, "true")
    seal(other, "false")
    yield lambda: seal(other, "true")
    for path, text in before.items():
        path.write_text(text)


def test_a_client_follows(
    world: World, sealing: Callable[[], None], tmp_path: Path
) -> None:
    first, second = world.first, world.second
    run_program([first.programs / "byteback-prune", "--prune"])
    assert all(is_sealed(first.root / CLIENT / x) for x in history(first.root))
    assert "is not moved here" in world.accept(CLIENT, status=10).stderr
    assert "no client is being moved here" in world.accept().stdout
    assert "would let" in world.move("--dry-run")
    assert world.at_first == "active"
    assert f"byteback-replicate --accept {CLIENT}" in world.move()
    assert world.move() == world.move()
    assert world.at_first == "moving"
    world.write("on the way")
    assert "moved" not in world.back_up()
    assert world.content(first.root) == "on the way"
    assert f"would accept {CLIENT}" in world.accept("--dry-run").stdout
    assert "seals the snapshots" in world.accept(status=9).stderr
    assert (world.at_first, world.at_second) == ("moving", None)
    sealing()
    assert f"accepted {CLIENT}" in world.accept().stdout
    assert (world.at_first, world.at_second) == ("moved", "active")
    assert history(second.root) == history(first.root)
    assert len(history(first.root)) == 3

    world.write("at the second")
    told = world.back_up("--full")
    assert "moved this machine to" in told
    assert told.count("moved this machine") == 1
    assert world.destination == world.new
    assert world.content(second.root) == "at the second"
    assert world.content(first.root) == "on the way"
    world.write("again")
    assert "moved" not in world.back_up()
    assert world.content(second.root) == "again"
    assert world.content(first.root) == "on the way"

    restore = first.programs / "byteback-restore"
    where = ["--to", str(tmp_path / "back"), "--snapshot", history(first.root)[0]]
    run_program([restore, "--restore", "--yes", *where, SOURCE])
    found = list((tmp_path / "back").rglob("file"))
    assert [path.read_text() for path in found] == ["at the first"]
    assert "no client is being moved here" in world.accept().stdout
    assert "is here already" in world.accept(CLIENT).stdout
    # The first one offers it no more, so that the second misses nothing.
    second.replicate()
    second.program("byteback-prune", "--prune")
    assert all(is_sealed(second.root / CLIENT / x) for x in history(second.root))
    status = run_program(
        [first.programs / "byteback-status", "--json", CLIENT], check=False
    )
    assert json.loads(status.stdout)["clients"][0]["is_retired"] is True


def test_a_client_that_does_not_follow(world: World) -> None:
    """Its administrator says so, or the new server is not the one that was told."""
    here = world.destination
    pinned = (CONFIGURATION / "known_hosts").read_text()
    world.move()
    world.accept()

    def refused(*words: str) -> str:
        told = world.back_up(*words, status=9)
        assert world.destination == here
        assert (CONFIGURATION / "known_hosts").read_text() == pinned
        return told

    world.write("nowhere")
    (CONFIGURATION / "follow_moves").write_text("false\n")
    assert "follow_moves says false" in refused()
    (CONFIGURATION / "follow_moves").unlink()
    refused("--destination", here)
    refused("--dry-run")
    note = world.first.root / ".byteback" / "hosts" / f"{CLIENT}.moving"
    honest = note.read_text()
    fields = json.loads(honest)
    other = world.first.sshd.known_hosts.partition(" ")[2]
    note.write_text(json.dumps(fields | {"host_key": other}))
    assert "another machine may have taken" in refused()
    note.write_text(json.dumps(fields | {"destination": "byteback@$(id):"}))
    assert "not understandably where" in refused()
    (CONFIGURATION / "known_hosts").write_text(f"{pinned}localhost {other}\n")
    pinned += f"localhost {other}\n"
    note.write_text(honest)
    assert "has another one for that name" in refused()
    assert world.content(world.first.root) != "nowhere"
    assert world.content(world.second.root) != "nowhere"

    pinned = pinned.replace(f"localhost {other}\n", "")
    (CONFIGURATION / "known_hosts").write_text(pinned)
    world.back_up()
    assert world.content(world.second.root) == "nowhere"


def killed_before(word: str, *words: str | Path) -> list[str | Path]:
    return [INTERPRETER, "-c", KILLER, word, *words]


def test_killed_anywhere(world: World) -> None:
    """Each time one server takes the client's backups; the same command goes on."""
    first, second = world.first, world.second
    world.move()
    words = ("replicate", "--accept", "--host-key", world.host_key)
    note = first.root / ".byteback" / "hosts" / f"{CLIENT}.moving"
    copy = second.root / ".byteback" / "hosts" / f"{CLIENT}.replica"
    seen = []
    for word in ("--close", "authorized_keys", ".replica", "--taken"):
        found = run_program(second.inside(*killed_before(word, *words)), check=False)
        assert found.status == KILLED, found
        has_key = CLIENT in (second.root / ".ssh/authorized_keys").read_text()
        seen.append((json.loads(note.read_text())["state"], has_key, copy.exists()))
    assert seen == [
        ("open", False, True),
        ("closed", False, True),
        ("closed", True, True),
        ("closed", True, False),
    ]
    assert "is being moved" in world.back_up(status=75)
    world.accept()
    assert (world.at_first, world.at_second) == ("moved", "active")
    assert history(second.root) == history(first.root)

    world.write("after all")
    here = world.destination
    for word in ("byteback/known_hosts", "byteback/destination"):
        argv = killed_before(word, "backup", "--retry-number=0", "--source", SOURCE)
        found = run_program(argv, check=False)
        assert found.status == KILLED, found
        assert world.destination == here
    assert "moved this machine" in world.back_up()
    pinned = (CONFIGURATION / "known_hosts").read_text().splitlines()
    assert len(pinned) == len(set(pinned)) == 2
    assert world.content(second.root) == "after all"


def emptying_loop() -> str:
    """The loop of the manual that moves all clients, for our second server."""
    page = (CHECKOUT / "man" / "byteback-clients.1").read_text()
    found = re.search(r"^byteback.*list \|[^|]*\|\n.*done$", page, re.MULTILINE)
    assert found is not None
    text = found[0].replace("\\-", "-").replace("\\(aq", "'")
    return text.replace("new.example.com", NAME)


def test_whom_nobody_moves(world: World, tmp_path: Path) -> None:
    """Keys of other second servers and of clients get nowhere; the right one does."""
    first, second = world.first, world.second
    key = tmp_path / "key"
    run_program(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    first.clients("replica", "third.example", "--key", key.with_suffix(".pub"))
    first.history("beside.example", 3)
    run_program(["sh", "-e", "-c", emptying_loop()])
    assert world.at_first == "moving"
    host_key = " ".join(key.with_suffix(".pub").read_text().split()[:2])
    right = second.ssh()
    own_key = right.index("-i") + 1

    def ask(with_key: Path | str, request: str) -> Outcome:
        argv = [*right[:own_key], with_key, *right[own_key + 1 :], request]
        return run_program(argv, check=False)

    program = "byteback-replicate"
    requests = (f"{program} --close {CLIENT}", f"{program} --taken {CLIENT} {host_key}")
    for request in requests:
        assert ask(key, request).status == 9
        assert ask(CONFIGURATION / "key", request).status == 9
    nothing = ask(key, f"{program} --moves")
    assert (nothing.status, nothing.stdout) == (0, "")
    for wrong in (
        *("--close beside.example", "--close", "--close ..", f"--moves {CLIENT}"),
        *(f"--taken {CLIENT}", f"--taken beside.example {host_key}"),
        f"--taken {CLIENT} {host_key}",  # before it was closed
    ):
        assert second.session(f"{program} {wrong}").status == 9, wrong
    assert world.at_first == "moving"
    world.write("still here")
    world.back_up()
    assert world.content(first.root) == "still here"

    assert CLIENT in second.session(f"{program} --moves").stdout
    lock = first.root / ".byteback" / "hosts" / f"{CLIENT}.lock"
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert second.session(requests[0]).status == 11  # a backup is under way
    assert second.session(requests[1]).status == 9
    assert second.session(requests[0]).status == 0
    assert "is being moved" in world.back_up(status=75)
    assert second.session(requests[1]).status == 0
    # What was said stays said.
    again = requests[1].replace(host_key, first.sshd.known_hosts.partition(" ")[2])
    assert second.session(again).status == 9
    first.clients("replica", "third.example", "--revoke")
