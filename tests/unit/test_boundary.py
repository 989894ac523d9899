"""Whatever a caller leaves a program without: one message, and the right status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAM = """
import errno, os, sys
from pathlib import Path
import click
from byteback.cli import _boundary
from byteback.errors import NotSetUpError
from byteback.system import process

@click.command("try-out")
@click.argument("what")
def command(what):
    if what == "error":
        raise NotSetUpError("no key")
    if what == "child":
        assert process.run(["false"], tolerate=(1,)).status == 1
    if what == "file":
        Path(sys.argv[2]).touch()
    if what == "descriptor":
        assert os.open("/dev/null", os.O_RDONLY) > 2
    if what == "memory":
        raise MemoryError
    if what == "disc":
        raise OSError(errno.EROFS, "Read-only file system", "/")
    click.echo("done")

_boundary.run(command, [sys.argv[1]])
"""


def run(what: str, shell: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a shell's line does that calls it "$@"."""
    argv = [sys.executable, "-c", PROGRAM, what, *words]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(
        ["sh", "-c", shell, "sh", *argv],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("what", "shell", "status", "said"),
    [
        ("well", '"$@" >&-', 0, ""),
        ("well", '"$@" <&- >&- 2>&-', 0, ""),
        ("descriptor", '"$@" <&- >&- 2>&-', 0, ""),
        ("error", '"$@" >&-', 10, "try-out: error: no key\n"),
        ("error", '"$@" 2>&-', 10, ""),
        ("error", '"$@" 2>/dev/full', 10, ""),
        (
            "well",
            '"$@" >/dev/full',
            1,
            "try-out: error: this machine is in trouble: No space left on device\n",
        ),
        ("memory", '"$@"', 1, "try-out: error: this machine is out of memory\n"),
        (
            "disc",
            '"$@"',
            1,
            "try-out: error: this machine is in trouble: Read-only file system: '/'\n",
        ),
        ("child", 'env --ignore-signal=CHLD "$@"', 0, ""),
    ],
)
def test_what_a_caller_took_away(what: str, shell: str, status: int, said: str) -> None:
    outcome = run(what, shell)
    assert (outcome.returncode, outcome.stderr) == (status, said)


def test_nobody_else_can_write_to_what_is_made(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert run("file", 'umask 0; "$@"', str(path)).returncode == 0
    assert path.stat().st_mode & 0o777 == 0o644
