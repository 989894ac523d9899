"""The programs start from a checkout, wherever they are called from."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import byteback

CHECKOUT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
PROGRAMS = sorted(PROJECT["scripts"])


def run_launcher(launcher: Path, *arguments: str) -> str:
    """Start a launcher in / and return what it prints.

    By this Python: the one that its ``#!`` line names may lack click. Integration tests
    and packages go by that line.
    """
    # No variables that lead to modules.
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/"}
    done = subprocess.run(
        [sys.executable, "-I", launcher, *arguments],
        cwd="/",
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_version_is_the_suites(program: str) -> None:
    shown = run_launcher(CHECKOUT / "bin" / program, "--version")
    assert shown == f"{program} (byteback) {byteback.__version__}\n"


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_ends_with_exit_statuses(program: str) -> None:
    shown = run_launcher(CHECKOUT / "bin" / program, "--help")
    assert program in shown
    assert "EXIT STATUS" in shown.replace("Exit status", "EXIT STATUS")


def test_launcher_works_through_a_link(tmp_path: Path) -> None:
    link = tmp_path / "byteback-prune"
    link.symlink_to(CHECKOUT / "bin" / "byteback-prune")
    assert "byteback-prune" in run_launcher(link, "--version")


@pytest.mark.parametrize("program", [*PROGRAMS, "byteback-trial"])
def test_launcher_is_executable(program: str) -> None:
    assert os.access(CHECKOUT / "bin" / program, os.X_OK)


@pytest.mark.parametrize(
    "hook", sorted((CHECKOUT / "hooks").iterdir()), ids=lambda hook: hook.name
)
def test_hooks_can_be_linked_as_they_are(hook: Path) -> None:
    # run-parts(8) takes no other names; a link has the hook's own unless told.
    assert re.fullmatch(r"[a-z-]+", hook.name)
    assert os.access(hook, os.X_OK)
    text = hook.read_text()
    assert text.startswith(("#!/usr/bin/python3 -I\n", "#!/bin/sh\n"))
    checker = (
        ["sh", "-n"] if text.startswith("#!/bin/sh") else [sys.executable, "-m", "ast"]
    )
    subprocess.run([*checker, hook], check=True, stdout=subprocess.DEVNULL)
