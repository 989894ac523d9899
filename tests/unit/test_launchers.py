"""The programs start from a checkout, wherever they are called from."""

from __future__ import annotations

import os
import re
import shutil
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


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_is_missing_for_a_launcher_is_named(program: str) -> None:
    """As on a machine where Python has no packages."""
    launcher = CHECKOUT / "bin" / program
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", launcher, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 10, done.stderr
    assert done.stderr.startswith(f"{program}: error: these Python modules are not")
    for package in ("click", "paramiko", "psutil", "xattr"):
        assert f" python3-{package}" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_older_python_is_named() -> None:
    code = f"import sys; sys.version_info = (3, 9, 2); sys.path.insert(0, '{CHECKOUT}')"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; import byteback.cli.backup"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 10
    assert "Python 3.11 or later is needed" in done.stderr
    assert "Traceback" not in done.stderr


def test_hooks_find_the_environment_that_they_were_installed_in(
    tmp_path: Path,
) -> None:
    """pipx puts them into its own, whose modules /usr/bin/python3 does not know."""
    prefix = tmp_path / "venv"
    python = "/usr/bin/python3"
    subprocess.run([python, "-m", "venv", "--without-pip", prefix], check=True)
    (packages,) = prefix.glob("lib/python3*/site-packages")
    (packages / "byteback").symlink_to(CHECKOUT / "byteback")
    shutil.copytree(CHECKOUT / "hooks", prefix / "share/byteback/hooks")
    for name in ("mariadb", "postgresql", "sqlite"):
        hook = prefix / "share/byteback/hooks" / name
        hook.write_text(hook.read_text().partition("\nrun(")[0] + "\nprint(run)\n")
        link = tmp_path / name
        link.symlink_to(hook)
        assert "<function run" in run_launcher(link)


def test_the_directory_of_the_hooks_is_named() -> None:
    shown = run_launcher(CHECKOUT / "bin" / "byteback-backup", "--help")
    assert f"  {CHECKOUT / 'hooks'}\n" in shown


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
