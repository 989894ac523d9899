"""Remembers which clients' directories an earlier run has found in order (D58).

A run comes every few minutes, and mostly finds that nothing has changed. Each change of
the names in a client's directory sets its ctime, which no program can set, and each
transfer writes the client's state. Where both are what they were, nothing is looked at
again for an hour. No deletion goes by this: before one, everything is looked at afresh.

Root's memory is outside of the store, where the store's user cannot write.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import byteback
from byteback.errors import UsageError
from byteback.model.hostname import is_host_name
from byteback.server.store import change, presence, settings
from byteback.server.store.layout import Store, lock_name
from byteback.server.store.state import BOOT_ID
from byteback.system import files, privilege

PATH = presence.PATH.with_name("looked")
KEPT_S = 3600.0  # after which everything is looked at again
# What changed a moment ago may go on changing within one tick of the clock, and what
# follows a backup, as the ledger's record, comes later.
YOUNG_S = 600.0
MAX_BYTES = 16 << 20
_GONE = "-"
ROOT = "."  # for the store's own directory: clients come and go in it


def client_names(store: Store) -> list[str]:
    """All directories that may be clients, with ``current`` inside or without."""
    with os.scandir(store.root) as entries:
        names = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
    return sorted(filter(is_host_name, names))


class Looked:
    """What one run of pruning knows of all clients: ``changed`` are to be looked at.

    ``now`` are seconds since 1970. With ``afresh`` these are all, and what was known is
    forgotten at once, so that a run that is killed leaves no memory behind.
    """

    def __init__(self, store: Store, now: float, *, afresh: bool = False) -> None:
        self._store = store
        self._now = now
        self._key = _key(store)
        self._since = now
        self._known: dict[str, str] = {}
        if afresh:
            forget(store)
        else:
            self._load()
        marks = {
            client: self._mark(*self._of(client)) for client in client_names(store)
        }
        self.changed = [
            client
            for client, mark in marks.items()
            if mark is None or self._known.get(client) != mark
        ]
        self.is_everything = len(self.changed) == len(marks)
        marks[ROOT] = self._mark(str(store.root))
        self._found = {client: mark for client, mark in marks.items() if mark}

    @property
    def is_as_known(self) -> bool:
        """True if no client has changed, come or gone."""
        root = self._found.get(ROOT)
        return not self.changed and root is not None and root == self._known.get(ROOT)

    def forget(self) -> None:
        """Let the next run look at everything, if this one is killed."""
        forget(self._store)
        self._known = {}

    def doubt(self, *clients: str) -> None:
        """Let the next run look at these clients again, whatever becomes of them."""
        for client in clients:
            self._found.pop(client, None)

    def keep(self) -> None:
        """Remember what was looked at; a failure costs the next run another look."""
        if self._found == self._known:
            return
        lines = [self._key, str(int(self._since))]
        lines += [f"{client} {mark}" for client, mark in self._found.items()]
        text = "".join(f"{line}\n" for line in lines)
        place = _place(self._store)
        with contextlib.suppress(OSError), _rights(place):
            place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            files.write_atomically(place, text.encode("ascii"), mode=0o600)

    def _load(self) -> None:
        place = _place(self._store)
        try:
            with _rights(place), place.open(encoding="ascii") as file:
                lines = file.read(MAX_BYTES).splitlines()
            key, since = lines[0], float(lines[1])
        except (OSError, ValueError, IndexError):
            return
        if key == self._key and 0 <= self._now - since < KEPT_S:
            self._since = since
            words = (line.partition(" ") for line in lines[2:])
            self._known = {client: mark for client, _, mark in words}

    def _of(self, client: str) -> tuple[str, str]:
        """The client's directory, and its state."""
        state = f"{self._store.state}/hosts/{lock_name(client)}.state"
        return f"{self._store.root}/{client}", state

    def _mark(self, *paths: str) -> str | None:
        """What any change of these places changes; None for a young one."""
        words, newest = "", 0.0
        for path in paths:
            try:
                found = os.lstat(path)
            except OSError:
                words += f"{_GONE} "
                continue
            newest = max(newest, found.st_ctime)
            words += f"{found.st_ino}/{found.st_ctime_ns} "
        return words if newest < self._now - YOUNG_S else None


def forget(store: Store) -> None:
    """Let the next run look at everything."""
    place = _place(store)
    with contextlib.suppress(OSError), _rights(place):
        place.unlink()


def _place(store: Store) -> Path:
    return PATH if privilege.is_root_within_reach() else store.state / PATH.name


def _rights(place: Path) -> contextlib.AbstractContextManager[None]:
    return privilege.raised() if place == PATH else contextlib.nullcontext()


def _key(store: Store) -> str:
    """The store, its machine's start, settings and program that a memory goes with."""
    boot, seals = "-", "-"
    with contextlib.suppress(OSError):
        boot = BOOT_ID.read_text(encoding="ascii").strip()
    with contextlib.suppress(UsageError):
        seals = str(settings.load().sealed)
    return f"{byteback.__version__} {change.store_name(store.root)} {boot} {seals}"
