"""Completion as shells do it: keys go in at a terminal, the edited line comes out."""

from __future__ import annotations

import os
import pty
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from byteback.cli import completion

CHECKOUT = Path(__file__).resolve().parents[2]
FIRST, SECOND, SAVED = "2025-11-22T20:15+0000", "2026-01-02T03:04+0100", "saved-by-me"
LIMIT_S = 120
# Stands in for the server; all else is the real program.
STUB = f"""#!{sys.executable}
import sys
from types import SimpleNamespace
sys.path.insert(0, {str(CHECKOUT)!r})
from byteback.cli import _snapshot_names
entries = [SimpleNamespace(snapshot=name) for name in {[FIRST, SECOND, SAVED]}]
_snapshot_names.list_files = lambda *_: SimpleNamespace(entries=entries)
from byteback.cli.restore import main
main()
"""
# Each file says, at the press of Ctrl-T, what stands in the line that is being edited.
ASK = b"\x14"
SETTINGS = {
    "bash": """
PS1='$ '
bind 'set bell-style none'; bind 'set show-all-if-ambiguous off'
bind 'set enable-bracketed-paste off'
for file in {share}/bash-completion/completions/*; do source "$file"; done
bind -x '"\\C-t": printf "%s" "$READLINE_LINE" >{line}.new; mv {line}.new {line}'
""",
    "zsh": """
PS1='$ '
setopt no_beep
unsetopt zle_bracketed_paste 2>/dev/null; unset zle_bracketed_paste
fpath=({share}/zsh/vendor-completions $fpath)
autoload -Uz compinit; compinit -D -u
tell() {{ printf '%s' "$BUFFER" >{line}.new; mv {line}.new {line} }}
zle -N tell; bindkey "^T" tell
""",
}
ARGUMENTS = {
    "bash": ["--norc", "--noprofile", "-i"],
    "zsh": ["-f", "-i"],
}
Complete = Callable[[str, str], str]


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shells' files as a package installs them, with a stub in bin/ beside."""
    share = tmp_path_factory.mktemp("completion") / "share"
    completion.write_all(share)
    stub = share.parent / "bin" / "byteback-restore"
    stub.parent.mkdir()
    stub.write_text(STUB)
    stub.chmod(0o755)
    return share


def environment(share: Path) -> dict[str, str]:
    path = f"{share.parent / 'bin'}:{CHECKOUT / 'bin'}:{os.environ['PATH']}"
    home = str(share.parent)
    return {"PATH": path, "HOME": home, "TERM": "dumb", "LC_ALL": "C.UTF-8"}


def require_shell(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture
def complete(share: Path, tmp_path: Path) -> Complete:
    """``complete(SHELL, TYPED)``: the line after Tab, without trailing blanks."""

    def in_shell(name: str, typed: str) -> str:
        program = require_shell(name)
        (tmp_path / "a file").touch()
        line = tmp_path / "line"
        settings = tmp_path / "settings"
        settings.write_text(SETTINGS[name].format(share=share, line=line))
        keys = f". {shlex.quote(str(settings))}; : >ready\r", f"{typed}\t"
        press_keys([program, *ARGUMENTS[name]], keys, line, environment(share))
        return line.read_text().rstrip(" ")

    return in_shell


def press_keys(
    argv: list[str], keys: tuple[str, str], line: Path, env: dict[str, str]
) -> None:
    """Give ``keys`` to a shell on a terminal, the second when it has done the first."""
    try:
        number, terminal = pty.fork()
    except OSError as error:  # a chroot or container without devpts
        pytest.skip(f"no terminals here: {error.strerror or error}")
    if number == 0:
        os.chdir(line.parent)
        os.execve(argv[0], argv, env)  # noqa: S606 # on a terminal of its own
    try:
        os.write(terminal, keys[0].encode())
        wait_for(line.with_name("ready"), terminal)
        os.write(terminal, keys[1].encode() + ASK)
        wait_for(line, terminal)
    finally:
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)
        os.close(terminal)


def wait_for(path: Path, terminal: int) -> None:
    """Read what the shell says until it has made a file, and then is quiet."""
    said = b""
    deadline = time.monotonic() + LIMIT_S
    while True:
        if select.select([terminal], [], [], 0.2)[0]:
            said += os.read(terminal, 4096)
        elif path.exists():
            return
        assert time.monotonic() < deadline, said.decode(errors="replace")


each_shell = pytest.mark.parametrize("shell", ["bash", "zsh"])


@each_shell
@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("byteback-res", "byteback-restore"),
        ("byteback-restore --sn", "byteback-restore --snapshot"),
        ("byteback-prune --order im", "byteback-prune --order importance"),
        ("byteback-prune -o a", "byteback-prune -o age"),
        ("byteback-restore --snapshot 2025", f"byteback-restore --snapshot {FIRST}"),
        (
            "byteback-restore --snapshot 2026-01-02T03:",
            f"byteback-restore --snapshot {SECOND}",
        ),
        ("byteback-restore -s 2025-11-22T20:15+0", f"byteback-restore -s {FIRST}"),
        ("byteback-restore --snapshot=2025", f"byteback-restore --snapshot={FIRST}"),
        (
            "byteback-restore --snapshot=2025-11-22T20:",
            f"byteback-restore --snapshot={FIRST}",
        ),
        ("byteback-restore --snapshot 20", "byteback-restore --snapshot 202"),
        (
            f"byteback-restore --snapshot {FIRST} --res",
            f"byteback-restore --snapshot {FIRST} --restore",
        ),
        (
            "byteback-restore --destination byteback@host: --snapshot sa",
            f"byteback-restore --destination byteback@host: --snapshot {SAVED}",
        ),
        (
            "byteback-restore --destination ssh://byteback@host:2222/ --js",
            "byteback-restore --destination ssh://byteback@host:2222/ --json",
        ),
        ("byteback-backup --ssh-key a", "byteback-backup --ssh-key a\\ file"),
        ("byteback-restore '/a b' --sn", "byteback-restore '/a b' --snapshot"),
    ],
)
def test_tab(complete: Complete, shell: str, typed: str, line: str) -> None:
    assert complete(shell, typed) == line


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("byteback-restore --sn", {"--snapshot"}),
        ("byteback-restore -", {"-n", "-s", "--snapshot", "--json"}),
        ("byteback-prune --order ", {"importance", "age"}),
        ("byteback-restore --snapshot ", {FIRST, SECOND, SAVED}),
        ("byteback-restore --snapshot 2025-11-22T20:", {FIRST}),
        ("byteback-restore -d byteback@host: -s sa", {SAVED}),
        ("byteback-restore --snapshot=2025", {f"--snapshot={FIRST}"}),
        ("byteback-restore '/a b' --sn", {"--snapshot"}),
        ("byteback-backup --ssh-key a", {"a file"}),
    ],
)
def test_fish_offers(
    share: Path, tmp_path: Path, typed: str, offered: set[str]
) -> None:
    (tmp_path / "a file").touch()
    found = offer_in_fish(share, tmp_path, typed)
    assert offered <= set(found)
    if not typed.endswith((" ", "-")):
        assert len(found) == len(offered)


def offer_in_fish(share: Path, directory: Path, typed: str) -> dict[str, str]:
    """The words that fish lists, unquoted, with the descriptions."""
    places = shlex.quote(str(share / "fish" / "vendor_completions.d"))
    script = f"set -p fish_complete_path {places}; complete -C {shlex.quote(typed)}"
    answer = subprocess.run(
        [require_shell("fish"), "--no-config", "-c", script],
        env=environment(share),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    assert not answer.stderr
    lines = [line.partition("\t") for line in answer.stdout.splitlines()]
    return {name.replace("\\", ""): described for name, _, described in lines}


def test_fish_describes(share: Path, tmp_path: Path) -> None:
    """Whole descriptions, with commas."""
    found = offer_in_fish(share, tmp_path, "byteback-restore --al")
    assert found["--all"].count(",")
