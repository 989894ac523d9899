"""Searches beside find(1), over the snapshots of a client with many files.

The server's program is run as sshd runs it, confined and as its user; what is measured
is all of it, Python's start included, and nothing of ssh.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks import data, scene

HOST = scene.HOST
SNAPSHOTS = 60
ROUNDS = 5


def lines_of(there: scene.Scene, scale: float) -> list[str]:
    """One line for each search, with what it is compared to."""
    directory = there.store / HOST
    current = directory / "current"
    _fill(current, scale)
    newest = _find(current, "file-00777")
    every = _find(directory, "file-00777")
    searches = [
        ("/etc/host*", "newest", None, None),
        ("/**/file-00777", "newest", "find in current", newest),
        ("/**/file-00777", "versions", "find in all", every),
        ("/**/gone", "newest", "find in all", every),
    ]
    start = _ask(there, "--ping --json", b"")
    found = [f"{SNAPSHOTS} snapshots of {int(data.SMALL_FILES * scale)} files"]
    found.append(f"ping: {start:.3f} s, which each search takes as well")
    for how in ("no index", "an index"):
        if how == "an index":
            found.append(_make_index(there))
        for pattern, scope, name, base in searches:
            seconds = _search(there, ["--snapshot=*", f"--scope={scope}"], pattern)
            beyond = seconds - start
            ratio = (
                f"  {seconds / base:6.2f} x {name} ({base:.3f} s);"
                f" {beyond / base:6.2f} x without the ping"
                if base
                else ""
            )
            line = f"{how}: search {scope:9} {pattern:16} {seconds:7.3f} s{ratio}"
            found.append(line)
    seconds = _search(there, ["--snapshot=current", "--scope=size"], "/")
    found.append(f"size of current    /                {seconds:7.3f} s")
    snapshots = sorted(path.name for path in directory.glob("20*"))
    words = [f"--snapshot={snapshots[-1]}", f"--since={snapshots[-8]}"]
    seconds = _search(there, words, "/")
    found.append(f"changes of 7 days  /                {seconds:7.3f} s")
    return found


def _make_index(there: scene.Scene) -> str:
    """As the timer's run after a backup does."""
    state = there.store / ".byteback/hosts" / f"{HOST}.state"
    state.parent.mkdir(mode=0o700, exist_ok=True)
    state.write_text("whole\n")
    for path in (state.parent, state):
        shutil.chown(path, "byteback", "byteback")
    started = time.monotonic()
    subprocess.run([there.bin / "byteback-prune", "--prune"], check=True)
    taken = time.monotonic() - started
    size = state.with_suffix(".names").stat().st_size
    return f"pruning, and making an index of {size / 1e6:.1f} MB: {taken:.3f} s"


def _fill(current: Path, scale: float) -> None:
    """A tree as a week's backups would leave it, and its snapshots."""
    data.make_small(current / "srv", scale)
    (current / "etc").mkdir()
    (current / "var/log").mkdir(parents=True)
    for name in ("hosts", "hostname", "host.conf"):
        (current / "etc" / name).write_text(name)
    for number in range(SNAPSHOTS):
        _rewrite(current / "srv", int(data.SMALL_FILES * scale), seed=number)
        (current / "var/log" / f"messages.{number}").write_text("a new one each day")
        (current / "var/log" / f"messages.{number - 7}").unlink(missing_ok=True)
        gone = current / "srv/07/07/gone"
        gone.touch() if number < SNAPSHOTS // 2 else gone.unlink(missing_ok=True)
        name = f"2026-{number // 28 + 1:02d}-{number % 28 + 1:02d}T03:00+0000"
        there = current.parent / name
        subprocess.run(
            ["btrfs", "-q", "subvolume", "snapshot", "-r", current, there], check=True
        )
    os.sync()


def _rewrite(directory: Path, count: int, seed: int) -> None:
    """One file in a hundred, without looking for them first."""
    chance = random.Random(seed)
    for number in chance.sample(range(count), max(1, count // 100)):
        branch = directory / f"{number % 40:02d}" / f"{number // 40 % 40:02d}"
        (branch / f"file-{number:05d}").write_bytes(chance.randbytes(data.SMALL_MEAN))


def _find(directory: Path, name: str) -> float:
    return _median(["find", directory, "-name", name])


def _search(there: scene.Scene, words: Sequence[str], pattern: str) -> float:
    return _ask(there, " ".join(["--find", *words]), pattern.encode() + b"\0")


def _ask(there: scene.Scene, words: str, stdin: bytes) -> float:
    environment = {
        "SSH_ORIGINAL_COMMAND": f"byteback-receive {words}",
        "SSH_CONNECTION": "127.0.0.1 1 127.0.0.1 2",
        "PATH": "/usr/bin:/bin",
    }
    as_user = ["setpriv", "--reuid=byteback", "--regid=byteback", "--clear-groups"]
    program: list[str | Path] = [
        *as_user,
        there.bin / "byteback-receive",
        "--host",
        HOST,
    ]
    return _median(program, environment, stdin)


def _median(
    argv: Sequence[str | Path],
    environment: dict[str, str] | None = None,
    stdin: bytes = b"",
) -> float:
    taken = []
    for _ in range(ROUNDS):
        started = time.monotonic()
        done = subprocess.run(
            argv, env=environment, input=stdin, check=True, capture_output=True
        )
        taken.append(time.monotonic() - started)
    if environment is not None:
        json.loads(done.stdout.splitlines()[-1])  # the end of a whole answer
    return statistics.median(taken)


def clear(there: scene.Scene) -> None:
    """Take all of it away again."""
    (there.store / ".byteback/hosts" / f"{HOST}.names").unlink(missing_ok=True)
    for path in (there.store / HOST).glob("20*"):
        subprocess.run(["btrfs", "-q", "subvolume", "delete", path], check=True)
    for path in (there.store / HOST / "current").iterdir():
        shutil.rmtree(path)
