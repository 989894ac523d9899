"""Sessions that tests start in numbers, and the server's processes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.waiting import PATIENCE_S


@contextmanager
def flood(argv: list[str], count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Sessions whose standard input stays open and silent."""
    sessions = [
        subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(count)
    ]
    try:
        yield sessions
    finally:
        for session in sessions:
            session.kill()
            session.communicate()


def processes() -> list[psutil.Process]:
    """The processes of the byteback user."""
    wanted = ["username", "name", "cmdline", "status"]
    return [
        process
        for process in psutil.process_iter(wanted)
        if process.info["username"] == "byteback"
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def forced_commands() -> list[psutil.Process]:
    return [process for process in processes() if _is_forced(process.info["cmdline"])]


def _is_forced(words: list[str] | None) -> bool:
    """True for its command line; one that ends at this moment has none."""
    if not words or "python" not in words[0]:
        return False
    return any(Path(word).name == "byteback-receive" for word in words[:3])


def wait_for(condition: object, timeout_s: float = PATIENCE_S) -> None:
    """Until ``condition`` is true; the test fails if that takes too long."""
    assert callable(condition)
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
