"""Changes the store's discs, step by step, and goes on with what was cut off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from byteback import locking
from byteback.errors import BytebackError, quote
from byteback.server.discs import adding, growing, removing, replacing
from byteback.server.discs.volume import Volume, open_volume
from byteback.server.discs.watch import Watcher
from byteback.server.setup.run import LOCK
from byteback.server.setup.steps import Outcome, StepRunner
from byteback.server.store.layout import find_store
from byteback.system import privilege


@dataclass(frozen=True)
class DiscRequest:
    """The administrator's request: one of the four changes."""

    grow: bool = False
    size: int | None = None  # bytes that an image grows to
    add: Path | None = None
    replace: tuple[str, Path] | None = None
    remove: str | None = None
    may_format: bool = False
    dry_run: bool = False
    # Asked before the first step, with what it means; raises where the answer is no.
    confirm: Callable[[str], None] | None = None
    watcher: Watcher = field(default_factory=Watcher)


def change_discs(request: DiscRequest) -> Iterator[Outcome]:
    """Take every step that is due, yielding what became of each.

    Everything that speaks against it is found before the first change. Raises a
    BytebackError.
    """
    privilege.require_root("only root can change the store's discs")
    volume = open_volume(find_store())
    try:
        if request.dry_run:
            yield from _steps(request, volume)
        else:
            with locking.hold(LOCK):
                yield from _steps(request, volume)
    except OSError as error:
        what = f"{quote(str(error.filename))}: " if error.filename else ""
        raise BytebackError(f"cannot go on: {what}{error.strerror}") from error


def _steps(request: DiscRequest, volume: Volume) -> Iterator[Outcome]:
    runner = StepRunner(request.dry_run)

    def confirm(what: str) -> None:
        if request.confirm is not None and not request.dry_run:
            request.confirm(what)

    if request.add is not None:
        step = adding.Addition(request.add, request.may_format, request.watcher)
        yield from step.steps(volume, runner, confirm)
    elif request.replace is not None:
        old, new = request.replace
        change = replacing.Replacing(old, new, request.may_format, request.watcher)
        yield from change.steps(volume, runner, confirm)
    elif request.remove is not None:
        removal = removing.Removal(request.remove, request.watcher)
        yield from removal.steps(volume, runner, confirm)
    else:
        yield from growing.steps(volume, request.size, runner)
