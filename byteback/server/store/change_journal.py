"""Which directories of ``current`` gained or lost names, transfer by transfer (D49).

Counting and indexing look at these directories after a backup, instead of at the whole
tree. The journal tells of one subvolume, from one of its transactions to another. Each
partial transfer adds the directories that its rsync has logged. Any other change of
``current`` leaves the journal behind: then its end is not what btrfs tells of
``current``, and the next transfer begins a new one. It decides nothing about safety: a
directory that is missing here is a name that is not found or counted until the next
full comparison.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from byteback.server.store import state
from byteback.server.store.layout import Store
from byteback.system import files
from byteback.system.btrfs import subvolume
from byteback.system.btrfs.subvolume import Subvolume

VERSION = 1
MAX_SIZE = 1 << 20  # bytes; the oldest transfers are forgotten
# Clients compare everything once a week. One that does not is walked through then.
KEPT_S = 14 * 86400.0

Link = tuple[int, Collection[str]]  # a transaction, and the directories until then


class Journal(NamedTuple):
    """All changes of names in one subvolume after transaction ``since``."""

    uuid: str
    since: int
    began: float  # seconds since 1970
    links: tuple[Link, ...]
    finished: int | None  # see state.finished_since

    @property
    def end(self) -> int:
        """The transaction of the last change that is told of."""
        return self.links[-1][0] if self.links else self.since

    def touched_after(self, transaction: int) -> Collection[str] | None:
        """The directories of changes after that; None if some are not known.

        They have no slash at either end; "" is the top. Some may be gone.
        """
        if transaction < self.since:
            return None
        found: set[str] = set()
        for last, directories in self.links:
            if last > transaction:
                found.update(directories)
        return found

    def tells_of(self, tree_: Subvolume) -> bool:
        """True if a snapshot shows a state of ``current`` that the journal covers.

        Of one that was made after the last change, only where nothing else was changed
        before; a sealed snapshot does not tell that itself (see is_up_to_date).
        """
        is_ours = tree_.parent_uuid.hex() == self.uuid and tree_.made >= self.since
        return is_ours and min(tree_.made, tree_.changed) <= self.end

    def is_up_to_date(self, store: Store, client: str) -> bool:
        """True if ``current`` is what the last transfer told of here has left."""
        found = subvolume.read_at(store.current(client))
        return (
            found is not None
            and (found.uuid.hex(), found.changed) == (self.uuid, self.end)
            and state.finished_since(store, client) == self.finished
        )


def read(store: Store, client: str) -> Journal | None:
    """The journal of ``client``; None if there is none, or none that can be read."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        about = json.loads(files.read_regular(_path(store, client), MAX_SIZE + 1))
        if about["version"] == VERSION:
            return Journal(
                str(about["uuid"]),
                int(about["since"]),
                float(about["began"]),
                tuple((int(n), tuple(map(str, names))) for n, names in about["links"]),
                about["finished"],
            )
    return None


def before_transfer(store: Store, client: str) -> Journal | None:
    """The journal that a partial transfer may go on with; None if there is none.

    For the holder of the host's lock.
    """
    journal = read(store, client)
    found = subvolume.read_at(store.current(client))
    if journal is None or found is None:
        return None
    is_same = (found.uuid.hex(), found.changed) == (journal.uuid, journal.end)
    is_young = 0 <= time.time() - journal.began < KEPT_S
    return journal if is_same and is_young else None


def after_transfer(
    store: Store, client: str, journal: Journal | None, touched: Collection[str] | None
) -> None:
    """Note the end of a whole transfer, which is on disc and recorded (state.write).

    ``touched`` are the directories that it has changed names in; None if they are not
    known. What cannot be noted is not: ``current`` is then walked through.
    """
    found = subvolume.read_at(store.current(client))
    if found is None:
        return
    finished = state.finished_since(store, client)
    if journal is None or touched is None:
        new = Journal(found.uuid.hex(), found.changed, time.time(), (), finished)
    else:
        links = journal.links
        if touched or found.changed != journal.end:
            links = (*links, (found.changed, sorted(touched)))
        new = journal._replace(links=links, finished=finished)
    with contextlib.suppress(OSError):
        _write(_path(store, client), new)


def _write(path: Path, journal: Journal) -> None:
    content = _format(journal)
    while len(content) > MAX_SIZE and journal.links:
        half = (len(journal.links) + 1) // 2
        since = journal.links[half - 1][0]
        journal = journal._replace(since=since, links=journal.links[half:])
        content = _format(journal)
    # Not synced: after a crash it is an older one, which tells of another end.
    new = path.with_suffix(".journal-new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    flags |= os.O_NONBLOCK  # a fifo without a reader is refused then
    with os.fdopen(os.open(new, flags, 0o600), "wb") as file:
        file.write(content)
    new.replace(path)


def _format(journal: Journal) -> bytes:
    return json.dumps({"version": VERSION, **journal._asdict()}).encode("ascii")


def _path(store: Store, client: str) -> Path:
    return store.lock_path(client).with_suffix(".journal")
