"""Remembers which sources the last whole backup of a client was made of.

It is the client's word, and for people alone: a client that suddenly backs up less is
told what leaves its ``current``, and listings say which snapshots are of a part only.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from byteback import log
from byteback.errors import RefusedError
from byteback.server.store.layout import Store
from byteback.system import files
from byteback.wire import coverage

MAX_SIZE = 1 << 16  # bytes


def read(store: Store, client: str) -> tuple[str, ...] | None:
    """The sources, or None if they are not known."""
    word = read_word(store, client)
    return None if word is None else coverage.parse_sources(word)


def read_word(store: Store, client: str) -> str | None:
    """The sources as one word of wire/coverage.py; None if they are not known."""
    try:
        word = files.read_regular(_path(store, client), MAX_SIZE).decode("ascii")
        word = word.strip()
        coverage.parse_sources(word)
    except (OSError, ValueError, RefusedError):
        return None
    return word


def note(store: Store, client: str, sources: tuple[str, ...] | None) -> None:
    """Note the sources of the backup that is in ``current``; None: nobody knows.

    If that fails, on a full disc say, nothing is known. No backup fails of it.
    """
    if sources == read(store, client):
        return
    path = _path(store, client)
    try:
        if sources is not None:
            word = coverage.format_sources(sources)
            files.write_atomically(path, f"{word}\n".encode("ascii"), mode=0o600)
            return
    except OSError as error:
        log.audit("WARNING", host=client, what="sources", reason=error)
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _path(store: Store, client: str) -> Path:
    return store.lock_path(client).with_suffix(".sources")
