"""Transfers that the kernel suddenly will not confine."""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from unittest.mock import sentinel

import pytest

from byteback.errors import BusyError, InterruptedBySignalError, PolicyError
from byteback.server.store.layout import Store
from byteback.server.store.settings import ServerSettings
from byteback.server.transfer import runner
from byteback.server.transfer.rsync_args import ServerCommand
from byteback.system import process, signals
from byteback.system.confinement import sandbox
from byteback.system.rsync import options

COMMAND = ServerCommand(("--server",), is_dry_run=False, deletes=False)
CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def unconfined(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which confining fails, and running without would work."""

    def fail(_job: sandbox.Job) -> sandbox.Running:
        raise OSError("not today")

    def go_on(_job: sandbox.Job) -> sandbox.Running:
        return sandbox.Running(sentinel.process, "none")

    monkeypatch.setattr(sandbox, "start", fail)
    monkeypatch.setattr(sandbox, "start_unconfined", go_on)


def start(*, reads_names: bool, confinement: str) -> tuple[process.Process, str]:
    job = sandbox.Job(
        Path("/usr/bin/rsync"), lambda _: ["--server"], Path("/srv"), sandbox.READ
    )
    settings = ServerSettings(confinement=confinement)
    return runner._start(job, settings, reads_names=reads_names)


@pytest.mark.usefixtures("unconfined")
def test_names_inside_the_protocol_are_never_read_unconfined() -> None:
    with pytest.raises(PolicyError, match="cannot confine"):
        start(reads_names=True, confinement="auto")
    started = start(reads_names=False, confinement="auto")
    assert started == (sentinel.process, "none")


@pytest.mark.usefixtures("unconfined")
def test_a_policy_that_requires_confinement_is_kept() -> None:
    with pytest.raises(PolicyError, match="cannot confine"):
        start(reads_names=False, confinement="require")


# It does not end, and has its parent ended when it is told to.
DEAF = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getppid(), signal.SIGTERM))
print("deaf", flush=True)
while True:
    time.sleep(60)
"""


def test_a_signal_while_rsync_is_ended_saves_it_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client sends one when it likes, by a second push, and may own its rsync."""
    monkeypatch.setattr(signals, "_state", signals._State())
    monkeypatch.setattr(runner, "own_store", lambda: Store(tmp_path))
    monkeypatch.setattr(process, "find_program", lambda _: "/bin/sh")
    monkeypatch.setattr(runner, "WATCH_S", 0.01)
    monkeypatch.setattr(options, "options", lambda *_: frozenset())
    quick = partial(process.stop_group, grace_s=2.0)
    monkeypatch.setattr(process, "stop_group", quick)
    deaf = process.start([sys.executable, "-c", DEAF], new_session=True)
    monkeypatch.setattr(runner, "_start", lambda *_, **__: (deaf, "none"))
    assert deaf.stdout is not None
    assert deaf.stdout.readline() == b"deaf\n"
    before = signal.signal(signal.SIGTERM, signals.on_signal)

    def look(_written: int | None) -> bool:
        raise PolicyError("stopped")

    try:
        with pytest.raises(InterruptedBySignalError):
            runner.run(COMMAND, tmp_path, sandbox.WRITE, ServerSettings(), None, look)
        assert deaf.poll() == -signal.SIGKILL
    finally:
        signal.signal(signal.SIGTERM, before)
        deaf.kill()
        deaf.communicate()


def test_one_that_is_stopped_is_measured_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a backup that is to begin again would be taken for larger than it was."""
    running = process.start(["sleep", "60"], new_session=True)
    monkeypatch.setattr(process, "find_program", lambda _: "/bin/true")
    monkeypatch.setattr(runner, "WATCH_S", 0.01)
    monkeypatch.setattr(options, "options", lambda *_: frozenset())
    monkeypatch.setattr(runner, "own_store", lambda: Store(tmp_path))
    monkeypatch.setattr(runner, "_start", lambda *_, **__: (running, "none"))
    measured = runner.run(
        COMMAND, tmp_path, sandbox.WRITE, ServerSettings(), None, lambda _: False
    )
    assert measured.status < 0
    assert measured.bytes_written is not None
    running.communicate()
    assert running.returncode == -signal.SIGTERM


HOLD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from byteback import locking
with locking.hold(Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("program", "is_ended"), [("byteback-receive", True), ("byteback-prune", False)]
)
def test_a_push_ends_an_older_session_and_nothing_of_an_administrators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, is_ended: bool
) -> None:
    """Else who pushes again and again would end a discard again and again."""
    monkeypatch.setattr(runner, "TAKE_OVER_WAIT_S", 60.0 if is_ended else 1.0)
    store = Store(tmp_path)
    store.state.mkdir(mode=0o700)
    script = tmp_path / program
    script.write_text(HOLD)
    words: list[str | Path] = [
        sys.executable,
        script,
        CHECKOUT,
        store.lock_path("a.example"),
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as older:
        try:
            assert older.stdout is not None
            assert older.stdout.readline() == b"held\n"
            if is_ended:
                with runner.own_lock(store, "a.example"):
                    assert older.wait(60) == -signal.SIGTERM
            else:
                busy = pytest.raises(BusyError)
                with busy, runner.own_lock(store, "a.example"):
                    pass
                assert older.poll() is None
        finally:
            older.kill()
