"""Notices a backup that covers less than the last one: the rest leaves ``current``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from byteback.client.backup import selections
from byteback.errors import BytebackError, quote
from byteback.model import coverage
from byteback.model.snapshot import CURRENT
from byteback.system import mounts
from byteback.system.files import write_atomically
from byteback.system.mounts import is_below
from byteback.wire.replies import Hello

DISCS = Path("/var/lib/byteback/discs")
MAX_SIZE = 1 << 20  # bytes
SHOWN = 5


def covered(hello: Hello, *, is_usual: bool) -> Sequence[str] | None:
    """The sources of what the server's ``current`` holds; None if they are not known.

    This machine's own memory is of the ``is_usual`` server, and tells nothing about
    another one, nor about a store that was made anew.
    """
    if hello.sources is not None or not is_usual or hello.tree == "":
        return hello.sources
    noted = selections.look_up(CURRENT)
    return None if noted is None else noted.sources


def check(
    before: Sequence[str] | None,
    now: Sequence[str],
    ask: Callable[[str], bool] | None,
    tell: Callable[[str], None],
) -> None:
    """Tell what leaves the server's copy if ``now`` are the sources, or ``ask`` first.

    ``before`` are those of the last backup. Raises BytebackError if the answer is no.
    """
    lost = coverage.lost(before or (), now)
    if lost is None:
        return
    text = (
        f"this backup covers less than the last one: {lost} goes from the server's "
        "current copy, and stays in its snapshots only"
    )
    if ask is None:
        tell(text)
    elif not ask(text):
        raise BytebackError(
            "nothing was backed up",
            hint="run byteback-backup without --source for the whole machine",
        )


def unmounted(sources: Sequence[str], state: Path = DISCS) -> str | None:
    """A sentence about discs in ``sources`` that are not mounted any more."""
    mounted = {mount.point for mount in mounts.read()}
    gone = [
        point
        for point in _read(state)
        if point not in mounted and any(is_below(point, source) for source in sources)
    ]
    if not gone:
        return None
    shown = ", ".join(quote(point) for point in gone[:SHOWN])
    more = f" and {len(gone) - SHOWN} more" if len(gone) > SHOWN else ""
    return (
        f"mounted at the last backup, and not now: {shown}{more}; what was there goes "
        "from the server's current copy, and stays in its snapshots only"
    )


def note_discs(discs: Sequence[str], state: Path = DISCS) -> None:
    """Note the mount points of discs that were backed up, for the next run."""
    if list(discs) == _read(state):
        return
    try:
        state.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_atomically(state, json.dumps(discs).encode("ascii"))
    except OSError:
        return


def _read(state: Path) -> list[str]:
    try:
        with state.open("rb") as file:
            return [os.fspath(point) for point in json.loads(file.read(MAX_SIZE))]
    except (OSError, ValueError, TypeError, RecursionError):
        return []
