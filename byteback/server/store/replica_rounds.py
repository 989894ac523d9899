"""When each first server was last fetched from, and how that ended.

byteback-status reads it, and it means nothing to the fetching itself.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

from byteback.server.store.layout import Store

DIRECTORY = "replicas"  # in the store's state
MAX_BYTES = 1 << 20
MAX_TOLD = 20


class Round(NamedTuple):
    """The last round with one first server; times are seconds since 1970."""

    source: str
    tried: float
    done: float | None = None  # when a round last brought all that there was
    began: float | None = None  # when the first round of all began
    missing: int = 0  # snapshots that are there and not here
    problems: tuple[str, ...] = ()


def read(store: Store, source: str) -> Round | None:
    """None if there was no round yet, or the record was lost."""
    return _read(_path(store, source))


def read_all(store: Store) -> list[Round]:
    """The last rounds with all first servers."""
    found = []
    with contextlib.suppress(OSError):
        for path in sorted((store.state / DIRECTORY).iterdir()):
            one = _read(path) if path.suffix == ".json" else None
            if one is not None:
                found.append(one)
    return found


def write(store: Store, one: Round) -> None:
    """Record a round; a full disc may keep that from being recorded."""
    import json

    from byteback.system import files

    path = _path(store, one.source)
    fields = one._replace(problems=one.problems[:MAX_TOLD])._asdict()
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        text = json.dumps(fields)
        files.write_atomically(path, f"{text}\n".encode("ascii"), mode=0o600)


def _read(path: Path) -> Round | None:
    import json

    with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
        with path.open("rb") as file:
            fields = json.loads(file.read(MAX_BYTES))
        one = Round(**fields)
        return one._replace(problems=tuple(map(str, one.problems)))
    return None


def _path(store: Store, source: str) -> Path:
    return store.state / DIRECTORY / f"{source}.json"
