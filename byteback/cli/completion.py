"""Writes the shells' completion files, when a package is built.

They hold no options: at each press of the key they ask the program itself, which
answers by click's own protocol.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import click
from click.shell_completion import get_completion_class

# What people type: sshd alone runs byteback-receive.
MODULES = {
    "byteback-backup": "byteback.cli.backup",
    "byteback-prune": "byteback.cli.prune",
    "byteback-restore": "byteback.cli.restore",
    "byteback-setup-client": "byteback.cli.setup_client",
    "byteback-setup-client-receive": "byteback.cli.setup_client_receive",
    "byteback-setup-server": "byteback.cli.setup_server",
    "byteback-snapshot": "byteback.cli.snapshot",
}
# Below share/, where each shell looks for what packages bring.
PLACES = {
    "bash": "bash-completion/completions/{program}",
    "zsh": "zsh/vendor-completions/_{program}",
    "fish": "fish/vendor_completions.d/{program}.fish",
}


def load_command(program: str) -> click.Command:
    """The click command behind a program."""
    command = importlib.import_module(MODULES[program]).command
    assert isinstance(command, click.Command)  # noqa: S101 # for the type checker
    return command


def format_completion(program: str, shell: str) -> str:
    """The text of one completion file."""
    kind = get_completion_class(shell)
    if kind is None:
        raise ValueError(f"click knows no shell {shell}")
    variable = f"_{program}_COMPLETE".replace("-", "_").upper()
    completion = kind(load_command(program), {}, program, variable)
    text = completion.source().strip()
    if shell == "zsh":
        text = _run_when_autoloaded(text, completion.func_name, program)
    return f"{text}\n"


def write_all(share: Path) -> None:
    """Write the files of every program for every shell below ``share``."""
    for shell, place in PLACES.items():
        for program in MODULES:
            path = share / place.format(program=program)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(format_completion(program, shell), encoding="utf-8")


def _run_when_autoloaded(text: str, function: str, program: str) -> str:
    """zsh runs the file at the first press of the key, which must complete already.

    Newer releases of click see to that; up to 8.1.3 theirs only registered itself.
    """
    register = f"compdef {function} {program}"
    if "loadautofunc" in text or register not in text:
        return text
    head = text[: text.rindex(register)].rstrip()
    return f'{head}\n\n{function} "$@"'


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
