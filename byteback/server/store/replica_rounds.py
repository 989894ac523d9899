"""When each first server was last fetched from, and how that ended.

byteback-status reads it, and it means nothing to the fetching itself.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from byteback.model.status import Replica
from byteback.server.store.layout import Store

# What root has set up, see replicate/sources.py.
CONFIGURED = Path("/etc/byteback/replicate")
FROM = "from"
DIRECTORY = "replicas"  # in the store's state
MAX_BYTES = 1 << 20
MAX_TOLD = 20
MAX_SENTENCE = 500  # characters: six bytes each, at most, so that all can be read again


def read(store: Store, source: str) -> Replica | None:
    """None if there was no round yet, or the record was lost."""
    return _read(_path(store, source))


def read_all(store: Store) -> tuple[Replica, ...]:
    """The last rounds with all first servers that are set up.

    One that was never tried counts from its set-up on: its schedule may not run.
    """
    found = []
    with contextlib.suppress(OSError):
        for place in sorted(CONFIGURED.glob(f"*/{FROM}")):
            name, since = place.parent.name, place.stat().st_mtime
            found.append(read(store, name) or Replica(name, since, began=since))
    return tuple(found)


def write(store: Store, one: Replica) -> None:
    """Record a round; a full disc may keep that from being recorded."""
    import json

    from byteback.system import files

    path = _path(store, one.source)
    # They hold the first server's own words, and that decides how long they are.
    problems = tuple(sentence[:MAX_SENTENCE] for sentence in one.problems[:MAX_TOLD])
    fields = one._replace(problems=problems)._asdict()
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        text = json.dumps(fields)
        files.write_atomically(path, f"{text}\n".encode("ascii"), mode=0o600)


def _read(path: Path) -> Replica | None:
    import json

    from byteback.system import files

    with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
        fields = json.loads(files.read_regular(path, MAX_BYTES))
        one = Replica(**fields)
        return one._replace(problems=tuple(map(str, one.problems)))
    return None


def _path(store: Store, source: str) -> Path:
    return store.state / DIRECTORY / f"{source}.json"
