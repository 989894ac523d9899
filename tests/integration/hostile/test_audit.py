"""The system log gets one line of each request, and nothing that a client forged."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from byteback.log import MAX_LINE
from tests.integration.hostile.processes import forced_commands, wait_for
from tests.integration.hostile.world import HOST, World
from tests.waiting import PATIENCE_S

DEV_LOG = Path("/dev/log")
LARGEST = 1 << 16
QUIET_S = 0.5
DAEMON, AUTH = 3, 4  # facilities and levels: syslog(3)
WARNING, INFO = 4, 6
# <PRIORITY>Mon dd hh:mm:ss TAG[PID]: TEXT, as the C library sends it.
_DATAGRAM = re.compile(
    rb"<(\d+)>\w{3} [ \d]\d \d\d:\d\d:\d\d ([\w-]+)\[\d+\]: (.*)", re.DOTALL
)
_FIELD = re.compile(r' (\w+)=("[^"]*"|[^ "]+)')


@dataclass(frozen=True)
class Line:
    """One message, as a syslog daemon gets it."""

    facility: int
    level: int
    text: str

    @property
    def verdict(self) -> str:
        return self.text.partition(" ")[0]

    @property
    def fields(self) -> dict[str, str]:
        """All ``key=value``; the line must hold nothing else, and no key twice."""
        rest = self.text[len(self.verdict) :]
        found = _FIELD.findall(rest)
        assert "".join(f" {key}={value}" for key, value in found) == rest
        fields = {key: value.strip('"') for key, value in found}
        assert len(fields) == len(found), self.text
        return fields


@dataclass(frozen=True)
class Log:
    """The system's log while somebody listens."""

    socket: socket.socket

    def lines(self) -> list[Line]:
        """All that byteback-receive says until nothing comes for half a second."""
        found: list[Line] = []
        patience = time.monotonic() + PATIENCE_S
        while time.monotonic() < patience:
            # What has come is read however late this process gets its turn.
            try:
                datagram = self.socket.recv(LARGEST)
            except TimeoutError:
                if found:
                    break
                continue
            match = _DATAGRAM.fullmatch(datagram.rstrip(b"\0"))
            if match and match[2] == b"byteback-receive":
                priority, text = int(match[1]), match[3].decode()
                found.append(Line(priority >> 3, priority & 7, text))
        return found

    def line(self) -> Line:
        """The only one."""
        (found,) = self.lines()
        return found


@contextmanager
def listening() -> Iterator[Log]:
    """Be the machine's syslog daemon."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as opened:
        opened.bind(str(DEV_LOG))
        DEV_LOG.chmod(0o666)
        opened.settimeout(QUIET_S)
        try:
            yield Log(opened)
        finally:
            DEV_LOG.unlink()


@pytest.fixture
def log(world: World) -> Iterator[Log]:
    # A session of an earlier test may still have its line to write.
    wait_for(lambda: not forced_commands())
    with listening() as opened:
        yield opened


def test_honest_requests_are_a_line_each(world: World, log: Log) -> None:
    """A search can send it although it can open no file by then."""
    for command, stdin, kind in (
        ("byteback-receive --ping", b"", "ping"),
        ("byteback-receive --find", b"/etc/*\0", "find"),
        ("byteback-receive --list /etc", b"", "list"),
    ):
        assert world.ssh(command, stdin=stdin).status == 0
        line = log.line()
        assert (line.facility, line.level) == (DAEMON, INFO)
        assert line.verdict == "ACCEPT"
        fields = line.fields
        assert (fields["host"], fields["request"]) == (HOST, kind)
        assert (fields["address"], fields["exit"]) == ("127.0.0.1", "0")
        assert float(fields["seconds"]) < 300


def test_a_transfer_tells_what_went_and_what_held_it(world: World, log: Log) -> None:
    world.check_honest_backup()
    fields = log.line().fields
    assert (fields["request"], fields["exit"]) == ("push", "0")
    assert int(fields["read"]) > 0
    assert "seccomp" in fields["confinement"]


FORGERIES = [
    b"evil\nACCEPT host=victim.example",
    b'evil" host="victim.example" x="',
    b"evil' host=victim.example",
    b"\x1b]0;title\x07\x1b[2J",
    b"rsync --server --host=victim.example . .",
    b"rsync --server --exit=0\tverdict=ACCEPT . .",
    b"byteback-receive --ping host=victim.example",
    b"byteback-receive --snapshot x\\ny --list /",
    b"\xff\xfe\xe2\x80\xae\xe2\x80\xa8 \xc2\x85host=victim.example",
    b"%s%n%s%n %m",
    b"x" * 100_000,
    b"\xf0\x9f\x92\xa9" * 20_000,
    b"byteback-receive --find --snapshot=" + b"\xe2\x80\xae" * 5000,
]


@pytest.mark.parametrize("command", FORGERIES, ids=lambda c: repr(c[:30]))
def test_a_refusal_is_one_line_that_cannot_be_forged(
    world: World, log: Log, command: bytes
) -> None:
    """Intrusion watchers read the auth facility, line by line and word by word."""
    heard = world.ssh(command)
    assert heard.status == 9
    line = log.line()
    assert (line.facility, line.level) == (AUTH, WARNING)
    assert line.verdict == "REJECT"
    assert line.text.isprintable()
    assert len(line.text) <= MAX_LINE
    fields = line.fields
    assert (fields["host"], fields["address"]) == (HOST, "127.0.0.1")
    assert (fields["exit"], bool(fields["reason"])) == ("9", True)
