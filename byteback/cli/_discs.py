"""byteback-setup-server's options that change the discs of a store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from byteback.cli._outcomes import show
from byteback.cli._progress import ProgressLine
from byteback.cli._questions import TerminalQuestions
from byteback.errors import BytebackError, UsageError
from byteback.server.discs.run import DiscRequest, change_discs
from byteback.server.discs.watch import Watcher
from byteback.server.setup.steps import image_size

OPTIONS = {
    "grow": "--grow",
    "add": "--add-device",
    "replace": "--replace-device",
    "remove": "--remove-device",
}
OF_SETUP = {
    "image": "--image",
    "device": "--device",
    "directory": "--directory",
    "mount_point": "--mount-point",
    "by_hand": "--mount-by-hand",
    "admin_keys": "--admin-key",
    "no_schedule": "--no-schedule",
}


def change(words: Mapping[str, Any]) -> None:
    """Do the one change that the command line asks for."""
    _check(words)
    line = None if words["dry_run"] else ProgressLine.for_terminal()
    with line or contextlib.nullcontext():
        request = DiscRequest(
            grow=words["grow"],
            size=image_size(words["size"]),
            add=_absolute(words["add"]),
            replace=_pair(words["replace"]),
            remove=words["remove"],
            may_format=words["may_format"],
            dry_run=words["dry_run"],
            confirm=_confirmation(words),
            watcher=Watcher(line, _tell),
        )
        show(change_discs(request))


def _tell(what: str) -> None:
    click.echo(f"\nbyteback-setup-server: note: {what}", err=True)


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


def _pair(words: tuple[str, Path] | None) -> tuple[str, Path] | None:
    return None if not words else (words[0], words[1].absolute())


def _check(words: Mapping[str, Any]) -> None:
    chosen = [option for name, option in OPTIONS.items() if words[name]]
    chosen += [option for name, option in OF_SETUP.items() if words[name]]
    if len(chosen) > 1:
        raise UsageError(f"{chosen[0]} and {chosen[1]} are two things: do one first")
    if words["size"] is not None and not words["grow"]:
        raise UsageError("--size goes with --image and --grow only")
    if words["may_format"] and not (words["add"] or words["replace"]):
        raise UsageError("--format goes with a new device only")


def _confirmation(words: Mapping[str, Any]) -> Callable[[str], None] | None:
    if words["yes"]:
        return None
    questions = TerminalQuestions()

    def confirm(what: str) -> None:
        if not questions.can_confirm():
            raise UsageError(
                "there is no terminal to ask on before a device changes",
                hint=f"{what} Add --yes if that is what you want",
            )
        click.echo(what, err=True)
        if not questions.confirm("Go on?"):
            raise BytebackError("nothing was changed")

    return confirm
