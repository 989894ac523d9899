"""Compression follows what was asked for, and what the line carries."""

from __future__ import annotations

import io
import logging
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from byteback.client.backup import push
from byteback.client.backup.rules import Selection
from byteback.client.restore import pull
from byteback.client.settings import Files, read_compression
from byteback.client.transport import compression, line_probe
from byteback.client.transport.connection import Connection, Request
from byteback.errors import BytebackError, RefusedError, UnreachableError, UsageError
from byteback.model.destination import Destination
from byteback.server.session.line_probe import acknowledge_blocks
from byteback.wire import requests
from byteback.wire.probe import ACKNOWLEDGEMENT, BLOCK, FIRST_BLOCKS, MAX_BLOCKS
from byteback.wire.replies import Hello

HELLO = Hello("1.0", 1, "a")
DESTINATION = Destination("byteback", "server.invalid")
SAYS_HELLO = """
import os, sys, time
print('{"byteback": "1.0", "protocol": 1, "host": "a"}', flush=True)
read, write = sys.stdin.buffer.read, lambda data: os.write(1, data)
"""
HONEST = (
    SAYS_HELLO
    + """
from byteback.server.session.line_probe import acknowledge_blocks
acknowledge_blocks(sys.stdin.buffer, sys.stdout.buffer)
"""
)


@dataclass(frozen=True)
class Stub(Connection):
    """A connection to a server that is a few lines of Python."""

    server: str = HONEST
    pings: list[bool] = field(default_factory=list)

    def command(self, request: Request) -> list[str]:
        assert request == requests.Ping(json=True, probe=True)
        return [sys.executable, "-c", self.server]

    def ping(self) -> Hello:
        self.pings.append(True)
        return HELLO


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may stand still while a line is measured."""
    monkeypatch.setattr(line_probe, "LONGEST_S", 60.0)


def connection(server: str = HONEST) -> Stub:
    return Stub(DESTINATION, Path("key"), None, None, server=server)


# --- What was asked for ----------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "given", "word"),
    [
        (None, None, "auto"),
        ("", None, "auto"),
        ("none\n", None, "none"),
        (" zstd ", None, "zstd"),
        ("zstd", "none", "none"),
        ("gzip", "auto", "auto"),
    ],
)
def test_command_line_beats_file_beats_default(
    tmp_path: Path, content: str | None, given: str | None, word: str
) -> None:
    if content is not None:
        (tmp_path / "compress").write_text(content)
    assert read_compression(Files(tmp_path), given) == word


@pytest.mark.parametrize("content", ["gzip", "zstd none", "ZSTD", "\x1b[31m"])
def test_a_wrong_word_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "compress").write_text(content)
    with pytest.raises(UsageError) as raised:
        read_compression(Files(tmp_path), None)
    assert "/compress'" in raised.value.message
    assert "\x1b" not in raised.value.message
    assert raised.value.hint == "it is one of auto, zstd, none"
    with pytest.raises(UsageError, match="--compress: 'lz4'"):
        read_compression(Files(tmp_path), "lz4")


@pytest.mark.parametrize(
    "word",
    ["-z", "-vzh", "--compress", "--zc=lz4", "--compress-choice=zstd", "--no-compress"],
)
def test_what_rsync_flags_say_stands_alone(word: str) -> None:
    for choice in ("auto", "zstd", "none"):
        there = connection()
        assert not compression.greet(there, choice, ["--bwlimit=1m", word]).compresses
        assert not compression.choose(connection("raise"), choice, [word])
        assert there.pings == [True]


@pytest.mark.parametrize(
    "word",
    [
        "-e ssh -z",
        "- *.gz",
        "-fz",
        "-Mz",
        "--exclude=z",
        "--size-only",
        "-",
        "zz",
        "-v",
    ],
)
def test_other_flags_say_nothing_of_it(word: str) -> None:
    assert not compression.is_said([word])


@pytest.mark.parametrize(("choice", "compresses"), [("zstd", True), ("none", False)])
def test_nothing_is_measured_unless_it_decides(choice: str, compresses: bool) -> None:
    there = connection("raise SystemExit('asked')")
    greeting = compression.greet(there, choice, [])
    assert greeting == compression.Greeting(HELLO, compresses)
    assert there.pings == [True]
    assert compression.choose(there, choice, []) is compresses
    assert there.pings == [True]  # a restore needs no ping then


def test_rsync_gets_the_option_before_rsync_flags(tmp_path: Path) -> None:
    there, selection = connection(), Selection(flags=("--compress-level=9",))
    argv = push.push_argv(there, selection, 9, compress=True)
    assert argv.index("--compress") < argv.index("--compress-level=9")
    assert "--compress" not in push.push_argv(there, selection, 9)
    job = pull.Pull(there, "current", tmp_path, 9, ["--no-z"], compresses=True)
    argv = pull.pull_argv(job, "list", recursive=True)
    assert argv.index("--compress") < argv.index("--no-z")


# --- What the line carries -------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (None, "not compressing: the line could not be measured"),
        (900e6, "not compressing: the line carries about 900 MB/s"),
        (compression.FAST, "not compressing: the line carries about 62 MB/s"),
        (62.4e6, "compressing: the line carries about 62 MB/s"),
        (12.5e6, "compressing: the line carries about 12 MB/s"),
        (125e3, "compressing: the line carries about 125 kB/s"),
        (0.0, "compressing: the line carries about 0 kB/s"),
    ],
)
def test_what_is_said_and_done(
    rate: float | None,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(line_probe, "ping", lambda *_: (HELLO, rate))
    with caplog.at_level(logging.DEBUG, "byteback"):
        compresses = compression.greet(connection(), "auto", []).compresses
    assert caplog.messages == [said]
    assert compresses == said.startswith("compressing")


def test_an_honest_server_is_measured() -> None:
    hello, rate = line_probe.ping(connection(), 1.0)
    assert hello == HELLO
    assert rate is not None
    assert rate > 0  # how fast is the machine's business


PAUSE_S = 1.0  # a busy machine may see the first answer late, but not as much


def test_a_slow_line_gets_two_blocks_and_shows_its_rate(tmp_path: Path) -> None:
    count = tmp_path / "count"
    server = SAYS_HELLO + (
        f"while len(read({BLOCK})) == {BLOCK}:\n"
        f"    time.sleep({PAUSE_S})\n    write(b'.')\n"
        f"    open({str(count)!r}, 'a').write('.')\n"
    )
    _, rate = line_probe.ping(connection(server), compression.FAST)
    assert rate is not None
    assert 0 < rate / (BLOCK / PAUSE_S) < 1.5  # 2 if the first one counted as well
    assert len(count.read_text()) == FIRST_BLOCKS


@pytest.mark.parametrize(
    ("rates", "result"),
    [
        ([1e6], 1e6),  # slow by two blocks alone
        ([9e6, 1e6], 1e6),
        ([9e6, 90e6], 90e6),
        ([9e6, 40e6, 90e6], 90e6),
        ([9e6, 40e6, 30e6, 35e6], 40e6),
        ([float("inf"), 40e6, 30e6, 90e6], 90e6),
    ],
)
def test_only_what_comes_close_is_measured_again(
    rates: list[float], result: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(rates)
    monkeypatch.setattr(line_probe._Line, "rate_of", lambda *_: next(left))
    assert line_probe.ping(connection(), compression.FAST) == (HELLO, result)
    assert list(left) == []


@pytest.mark.parametrize(
    "server",
    [
        "",
        "write(b'x' * 100)",
        "os.close(0); time.sleep(0.1)",
        "raise SystemExit(9)",
        "write(b'.'); read(1); raise SystemExit(0)",
        "while True: write(b'yes' * 1000)",
    ],
)
def test_a_server_that_does_not_take_part(server: str) -> None:
    started = time.monotonic()
    assert line_probe.ping(connection(SAYS_HELLO + server), 1e9) == (HELLO, None)
    assert time.monotonic() - started < 300


@pytest.mark.parametrize("server", ["time.sleep(600)", "read(); time.sleep(600)"])
def test_a_silent_server_counts_as_a_slow_line(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_probe, "LONGEST_S", 0.2)
    monkeypatch.setattr(line_probe, "END_S", 0.1)
    started = time.monotonic()
    assert line_probe.ping(connection(SAYS_HELLO + server), 1e9) == (HELLO, 0.0)
    assert time.monotonic() - started < 300


@pytest.mark.parametrize(
    "server",
    [
        "import sys; sys.exit('byteback-receive: error: the server does not know it')",
        "import sys; sys.stderr.write('failed'); sys.exit(9)",
        "",
        "print('Welcome')",
    ],
)
def test_a_server_that_does_not_know_it_is_asked_plainly(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_probe, "END_S", 60.0)  # it ends by itself
    there = connection(server)
    assert line_probe.ping(there, 1e9) == (HELLO, None)
    assert there.pings == [True]


@pytest.mark.parametrize("end", ["\\n", ""])
def test_a_server_that_prints_before_its_hello_is_told_of(end: str) -> None:
    """rsync could not work there: its stream would begin with the same text."""
    prints = f"import sys; sys.stdout.write('Welcome{end}')"
    with pytest.raises(RefusedError, match=r"text of its own.*'Welcome'"):
        line_probe.ping(connection(f"{prints}\n{HONEST}"), 1.0)


@pytest.mark.parametrize(
    ("server", "kind"),
    [
        ("import sys; sys.exit(255)", UnreachableError),
        ("import os; os.kill(os.getpid(), 9)", UnreachableError),
        (
            "import os; os.write(2, b'Permission denied (publickey).'); os._exit(255)",
            RefusedError,
        ),
        ("while True: print('yes' * 1000)", RefusedError),
    ],
)
def test_a_ping_that_fails_is_not_repeated(
    server: str, kind: type[BytebackError], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "while" not in server:
        monkeypatch.setattr(line_probe, "END_S", 60.0)  # it ends by itself
    there = connection(server)
    with pytest.raises(kind):
        line_probe.ping(there, 1e9)
    assert there.pings == []
    assert compression.choose(there, "auto", []) is False  # but a restore goes on


def test_a_server_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_probe, "REQUEST_TIMEOUT_S", 0.1)
    with pytest.raises(UnreachableError, match="did not answer in time"):
        line_probe.ping(connection("import time; time.sleep(60)"), 1e9)


# --- The server's part -----------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "answers"),
    [(0, 0), (BLOCK - 1, 0), (BLOCK, 1), (3 * BLOCK + 1, 3)],
)
def test_whole_blocks_are_acknowledged(size: int, answers: int) -> None:
    sink = io.BytesIO()
    acknowledge_blocks(io.BytesIO(bytes(size)), sink)
    assert sink.getvalue() == ACKNOWLEDGEMENT * answers


def test_a_client_that_does_not_end_is_refused() -> None:
    sink = io.BytesIO()
    acknowledge_blocks(io.BytesIO(bytes(MAX_BLOCKS * BLOCK)), sink)
    assert len(sink.getvalue()) == MAX_BLOCKS
    with Path("/dev/zero").open("rb") as endless, pytest.raises(RefusedError):
        acknowledge_blocks(endless, sink)
    assert len(sink.getvalue()) == 2 * MAX_BLOCKS
