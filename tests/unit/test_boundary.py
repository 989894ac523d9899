"""Whatever a caller leaves a program without: one message, and the right status."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from byteback import errors

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAM = """
import errno, os, sys
from pathlib import Path
import click
from byteback.cli import _boundary
from byteback.errors import NotSetUpError, ToolError, UsageError
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
    if what == "usage":
        raise UsageError("this cannot be")
    if what == "tool":
        raise ToolError("a program failed")
    if what == "module":
        raise ModuleNotFoundError("No module named 'psutil'", name="psutil")
    if what == "relative":
        Path("file").absolute()
    if what == "child-in-directory":  # rsync and others fail where they are nowhere
        process.run(["sh", "-c", "cd . && test -e ."])
        assert process.run(["pwd", "-P"]).text == "/\\n"
    if what == "fields":
        _boundary.run(command, ["error"], with_fields=True)
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
    message, hint, _ = f"{outcome.stderr}\n\n".split("\n", 2)
    assert (outcome.returncode, message) == (status, said.rstrip("\n"))
    assert hint.startswith("  hint: ") is bool(said)


@pytest.mark.parametrize(
    ("what", "hint"),
    [
        ("error", "byteback(7) says how to set it up"),
        ("usage", "try-out --help and byteback(7) say what is possible"),
        ("tool", "try-out --verbose shows what was started, and all that it said"),
    ],
)
def test_every_error_says_what_to_do(what: str, hint: str) -> None:
    assert f"\n  hint: {hint}\n" in run(what, '"$@"').stderr


def test_every_kind_of_error_has_a_hint_for_all_of_its_kind() -> None:
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.BytebackError):
            has_hint = kind.general_hint is not None
            assert has_hint or kind is errors.InterruptedBySignalError


def test_a_module_that_is_not_installed_is_named_with_its_package() -> None:
    outcome = run("module", '"$@"')
    assert outcome.returncode == 10
    assert "not installed" in outcome.stderr
    assert "apt-get install" in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize(
    ("what", "status", "said"),
    [
        ("relative", 2, "the working directory has been removed"),
        ("child", 0, ""),
        ("child-in-directory", 0, ""),
    ],
)
def test_a_working_directory_that_was_removed(
    tmp_path: Path, what: str, status: int, said: str
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    outcome = run(what, f'cd "{gone}" && rmdir "{gone}" && "$@"')
    assert outcome.returncode == status, outcome.stderr
    assert said in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_fields_are_for_programs(tmp_path: Path) -> None:
    """A person at a terminal does not see them."""
    assert "  status: 10\n" in run("fields", '"$@"').stderr
    master, terminal = pty.openpty()
    shell = f'"$@" 2>/proc/{os.getpid()}/fd/{terminal}'
    assert run("fields", shell).returncode == 10
    shown = os.read(master, 4096).decode()
    os.close(terminal)
    os.close(master)
    assert "error: no key" in shown
    assert "status: " not in shown


def test_nobody_else_can_write_to_what_is_made(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert run("file", 'umask 0; "$@"', str(path)).returncode == 0
    assert path.stat().st_mode & 0o777 == 0o644
