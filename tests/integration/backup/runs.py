"""Runs byteback-backup for tests, and looks at what the server has then."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
from pathlib import Path

from tests.integration.conftest import EnrolledClient
from tests.integration.programs import SEARCH_PATH, Outcome, run_program
from tests.waiting import PATIENCE_S


def backup(client: EnrolledClient, *words: str | Path, expect: int = 0) -> Outcome:
    """Run byteback-backup without a terminal and check its status."""
    argv = [client.bin / "byteback-backup", "--retry-delay", "0", *words]
    outcome = run_program(argv, check=False)
    assert outcome.status == expect, outcome
    return outcome


def copy_of(client: EnrolledClient, path: Path, tree: str = "current") -> Path:
    return client.store / client.host / tree / path.relative_to("/")


def snapshots(client: EnrolledClient) -> list[str]:
    names = sorted(path.name for path in (client.store / client.host).iterdir())
    return [name for name in names if name != "current"]


def make_due(client: EnrolledClient) -> None:
    """Date the snapshots into the past, so that the next one is due."""
    for number, name in enumerate(snapshots(client)):
        if not name.startswith("2001"):
            host = client.store / client.host
            (host / name).rename(host / f"2001-01-{number + 1:02}T00:00+0000")


def add_hook(client: EnrolledClient, directory: str, name: str, script: str) -> None:
    path = client.configuration / directory / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def on_terminal(
    client: EnrolledClient, *words: str | Path, typed: bytes = b""
) -> tuple[int, bytes]:
    """Run byteback-backup at a terminal: its status, and what the terminal shows.

    With ``typed`` its standard input is the terminal, too.
    """
    ours, theirs = pty.openpty()
    argv = [client.bin / "byteback-backup", "--retry-delay", "0", *words]
    environment = {"PATH": SEARCH_PATH, "TERM": "xterm", "COLUMNS": "80"}
    stdin = theirs if typed else subprocess.DEVNULL
    running = subprocess.Popen(
        argv, stdin=stdin, stdout=theirs, stderr=theirs, env=environment
    )
    os.write(ours, typed)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal's end of file looks
        while chunk := os.read(ours, 65536):
            shown += chunk
    os.close(ours)
    return running.wait(PATIENCE_S), shown
