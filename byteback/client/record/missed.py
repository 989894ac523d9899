"""Looks in a full comparison for changes that the record did not tell.

There are none unless something is wrong: with a file system, a kernel, or with this. So
whatever rsync finds to do for a name that is as it was by the record is an alarm.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from byteback.client.record.blocks import LINKED, Block
from byteback.client.record.compare import Change, Void
from byteback.model.rsync_names import plain_name
from byteback.system.files import write_atomically

MARK = Path("/var/lib/byteback/record-missed")
MAX_NAMES = 1000  # that are looked at more closely
SHOWN = 100  # names that the mark holds
_LINE = re.compile(r"\d+ (\S{9,11}) +(.+)", re.DOTALL)  # of push.SENT_FORMAT
_DELETED = "*deleting"
# rsync(1), --itemize-changes, from the third character on. A server may be unable to
# keep an ACL or attribute: then rsync sends it each time.
_ATTRIBUTES = frozenset(".ax ")


class Missed:
    """Reads what a full push finds to do, and judges it afterwards.

    ``changes`` are what the record tells, ``void`` what it knows nothing of.
    """

    def __init__(self, changes: Iterable[Change], void: Void) -> None:
        self._told = frozenset(change.path for change in changes)
        self._gone = Void(self._told)
        self._void = void
        self._odd: dict[str, bool] = {}  # names, and whether they were deleted

    def take(self, line: str) -> None:
        """Read one line of the format push.SENT_FORMAT; others mean nothing here."""
        match = _LINE.fullmatch(line)
        if match is None or len(self._odd) >= MAX_NAMES:
            return
        flags, path = match[1], plain_name(match[2]).strip("/")
        if path in ("", ".") or path in self._told or self._void.covers(path):
            return
        if flags == _DELETED:
            if not self._gone.covers(path):
                self._odd[path] = True
        elif not set(flags[2:]) <= _ATTRIBUTES:
            self._odd[path] = False

    def names(
        self, read_record: Callable[[], Iterator[Block]], root: str = "/"
    ) -> Sequence[str]:
        """The names that have changed without the record's knowledge.

        ``read_record`` gives the blocks of the new record: what has changed since its
        walk it could not tell. Files of several names are passed over: the server
        itself removes such names now and then, to have them sent again (D34).
        """
        if not self._odd:
            return []
        recorded = self._recorded(read_record())
        found = []
        for path, is_deleted in self._odd.items():
            kind, *known = recorded.get(path, (None,))
            live = _state(root, path)
            if kind is None:
                is_missed = is_deleted and live is None
            else:
                is_missed = kind != LINKED and live is not None and live == (*known,)
            if is_missed:
                found.append(path)
        return found

    def _recorded(self, blocks: Iterable[Block]) -> dict[str, tuple[int, int, int]]:
        """Kind, inode number and ctime of the names in question."""
        wanted: dict[str, set[str]] = {}
        for path in self._odd:
            parent, _, name = path.rpartition("/")
            wanted.setdefault(parent, set()).add(name)
        found = {}
        for block in blocks:
            names = wanted.get(block.path, ())
            for name, inode, ctime, kind in block.entries() if names else ():
                if name in names:
                    path = f"{block.path}/{name}" if block.path else name
                    found[path] = (kind, inode, ctime)
        return found


def _state(root: str, path: str) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        status = os.lstat(f"{root.rstrip('/')}/{path}")
        return status.st_ino, status.st_ctime_ns
    return None


def has_mark(mark: Path = MARK) -> bool:
    """True if an earlier comparison found changes that still need a look."""
    return mark.exists()


def set_mark(names: Sequence[str], mark: Path = MARK) -> None:
    """Have full backups made until an administrator asks for one. Raises OSError."""
    mark.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    text = b"".join(os.fsencode(name) + b"\0" for name in names[:SHOWN])
    write_atomically(mark, text, mode=0o600)


def clear_mark(mark: Path = MARK) -> None:
    """An administrator has seen to it. Raises OSError."""
    mark.unlink(missing_ok=True)
