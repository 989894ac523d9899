"""Remembers what an administrator has been told, so that each run need not repeat it.

Told is what a run leaves out for a reason that may surprise, and what it leaves out no
longer is forgotten: should that come back, it is news again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from byteback.client.backup.rules import LeftOut
from byteback.system.files import write_atomically

STATE = Path("/var/lib/byteback/left-out")
MAX_SIZE = 1 << 20  # bytes
SHOWN = 5


def news(left_out: Sequence[LeftOut], state: Path = STATE) -> list[LeftOut]:
    """Those of what is left out now that no run has told of."""
    known = {one.key for one in _read(state)}
    return [one for one in left_out if one.key not in known]


def note(left_out: Sequence[LeftOut], state: Path = STATE) -> None:
    """Note that all this was told. If that fails, the next run tells it once more."""
    told = sorted(left_out, key=lambda one: one.key)
    if told == _read(state):
        return
    try:
        state.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fields = [asdict(one) for one in told]
        write_atomically(state, json.dumps(fields, indent=0).encode("ascii"))
    except OSError:
        return


def sentence(left_out: Sequence[LeftOut]) -> str:
    """A path that is left out, and the reason."""
    shown = [one.text for one in left_out[:SHOWN]]
    more = len(left_out) - SHOWN
    if more > 0:
        shown.append(f"{more} more")
    return f"left out of the backup: {', '.join(shown)}"


def _read(state: Path) -> list[LeftOut]:
    try:
        with state.open("rb") as file:
            fields = json.loads(file.read(MAX_SIZE))
        return [
            LeftOut(*(str(one[name]) for name in ("key", "text", "path", "original")))
            for one in fields
        ]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return []
