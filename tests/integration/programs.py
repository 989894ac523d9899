"""Starts programs for integration tests and says what they printed when they fail."""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.requirements import SEARCH_PATH, do_without, require_program

__all__ = ["SEARCH_PATH", "do_without", "require_program"]  # for the tests here


# A program that runs for longer hangs. One on a busy machine may take minutes.
HANGS_S = 600.0


@dataclass(frozen=True)
class Outcome:
    """How a program ended and what it printed, as text."""

    status: int  # exit status, or minus the signal that ended it
    stdout: str
    stderr: str


def run_program(
    argv: Sequence[str | Path],
    *,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    timeout_s: float = HANGS_S,
    stdin: str = "",
    cwd: Path | None = None,
) -> Outcome:
    """Run a program to its end; fail the test if its status is not 0 and ``check``.

    ``env`` is added to the test's own environment. Output that is no UTF-8 arrives
    with surrogates.
    """
    done = subprocess.run(
        [os.fspath(word) for word in argv],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        env={**os.environ, "PATH": SEARCH_PATH, **(env or {})},
        timeout=timeout_s,
        cwd=cwd,
        check=False,
    )
    outcome = Outcome(done.returncode, done.stdout, done.stderr)
    if check and outcome.status != 0:
        pytest.fail(describe_failure(argv, outcome), pytrace=True)
    return outcome


def processor_seconds() -> float:
    """The processor time of all programs that ended so far, to the microsecond."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def describe_failure(argv: Sequence[str | Path], outcome: Outcome) -> str:
    """The command line, its status and everything that it printed."""
    words = shlex.join(os.fspath(word) for word in argv)
    return (
        f"{words}\nended with status {outcome.status}\n"
        f"--- standard output\n{outcome.stdout}\n--- standard error\n{outcome.stderr}"
    )
