"""Which clients are copies that this server fetches from another one.

Such a client makes no backups here: only byteback-replicate writes to its ``current``.
The note also holds a token of each snapshot that was brought, by which a snapshot of
the same name and another content is known.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from byteback.errors import RefusedError, quote
from byteback.server.store.layout import Store
from byteback.wire.failures import Reason

ENDING = ".replica"
MAX_BYTES = 16 << 20
UNKNOWN = "unknown"  # for under_way: nothing is known about ``current``


class ReplicaNote(NamedTuple):
    """From which server a client is fetched, and the tokens of what was brought."""

    source: str
    tokens: Mapping[str, str]  # by the names of snapshots
    since: float = 0.0  # when it was first heard of, in seconds since 1970
    # The snapshot that ``current`` may hold parts of; empty where it is as the newest.
    under_way: str = ""


_DAMAGED = ReplicaNote("", {}, under_way=UNKNOWN)


def read(store: Store, client: str) -> ReplicaNote | None:
    """None for a client that is no copy. A damaged note has lost all else."""
    try:
        from byteback.system import files

        text = files.read_regular(path(store, client), MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError:
        return _DAMAGED
    import json

    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
        fields = json.loads(text)
        tokens = {str(name): str(token) for name, token in fields["tokens"].items()}
        since, under_way = float(fields["since"]), str(fields.get("under_way", ""))
        return ReplicaNote(str(fields["from"]), tokens, since, under_way)
    return _DAMAGED


def write(store: Store, client: str, note: ReplicaNote) -> None:
    """Note that a client is a copy. Raises BytebackError."""
    import json

    from byteback import locking
    from byteback.system import files

    place = path(store, client)
    fields = {**note._asdict(), "tokens": dict(note.tokens)}
    fields["from"] = fields.pop("source")
    text = json.dumps(fields)
    with locking.map_os_errors(place):
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write_atomically(place, f"{text}\n".encode("ascii"), mode=0o600)


def is_copy(store: Store, client: str) -> bool:
    """True if this server fetches the client's backups from another one."""
    return path(store, client).exists()


def copies(store: Store, clients: Iterable[str]) -> frozenset[str]:
    """Those of the clients that are fetched from another server."""
    return frozenset(store.noted(clients, ENDING))


def check(store: Store, client: str) -> None:
    """Raise RefusedError for a client that may not write here, for it is a copy."""
    if is_copy(store, client):
        raise RefusedError(
            f"this server holds a copy of the backups of {quote(client)}, which it "
            "fetches from another server: it takes no backups itself",
            hint="restores work from here; backups go to the first server",
            reason=Reason.REPLICA,
        )


def path(store: Store, client: str) -> Path:
    """Where that is noted."""
    return store.lock_path(client).with_suffix(ENDING)
