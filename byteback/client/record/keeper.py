"""One backup's dealings with the record: what may go in part, and the next record.

The order of things is what keeps the record true. First comes the time from which a
ctime is too young to be trusted, then the walk, then the transfer: so the server never
has less of a name than is recorded. A record counts only together with the token that
the server gave for the tree that it tells of.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from byteback.client.record import blocks, settle, skeleton
from byteback.client.record.blocks import DIRECTORY, UNKNOWN, DamagedError
from byteback.client.record.compare import Change, Comparison, Void, names_of
from byteback.client.record.missed import Missed
from byteback.client.record.transfer_list import MAX_RULES, TransferList, make_list
from byteback.client.record.walk import (
    RACY_NS,
    Domain,
    UnfitError,
    Walk,
    Walked,
)
from byteback.client.settings import RUN_DIRECTORY
from byteback.errors import BytebackError

logger = logging.getLogger(__name__)

PLACE = Path("/var/cache/byteback/record")
UNFINISHED = ".new"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
VERSION = 1
MAX_CHANGES = 100_000  # names; with so many, sending them alone was measured faster
MAX_JUDGED = 100_000  # directories, whose rules are asked once
MAX_EXCLUDED = 100_000
MAX_VOID = 1000
MAX_COMPARED = 50_000_000  # names times rules: some seconds
SLEW = 1 / 1000  # by which a clock may be slowed down (adjtimex(2): half of it)
STEP_NS = 1_000_000_000
MOMENT_NS = 100_000_000
DAY_NS = 86_400_000_000_000


@dataclass(frozen=True)
class Selected:
    """The selection of a backup, as far as the record depends on it."""

    rules: Sequence[str]  # rsync's words
    fingerprint: str
    domain: Domain


@dataclass(frozen=True)
class Rhythm:
    """The rhythm of full comparisons, on days that are a client's own."""

    name: str  # the client's
    days: int  # 0: never

    def is_due(self, last: int, now: int) -> bool:
        """True if such a day has come since ``last``, in nanoseconds since 1970."""
        if self.days < 1:
            return False
        own = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8], "big")
        days = [time_ns // DAY_NS + own for time_ns in (last, now)]
        return days[0] // self.days != days[1] // self.days


NO_RHYTHM = Rhythm("", 0)
_OTHER_TREE = "the server's copy is another one than the last backup made"


@dataclass(frozen=True)
class Place:
    """The paths of the record's files. Only tests use others."""

    record: Path = PLACE
    run: Path = RUN_DIRECTORY
    root: str = "/"


@dataclass
class _Old:
    """The last record, if it is one at all."""

    file: IO[bytes]
    reader: blocks.Reader
    excluded: frozenset[str]
    void: frozenset[str]
    about: dict[str, Any]


@dataclass
class Round:
    """From the walk before a transfer to the record after it; a context manager."""

    selected: Selected
    token: str | None  # the server's, for the tree as it is now
    full_reason: str | None = None  # why a full one is wanted
    rhythm: Rhythm = NO_RHYTHM
    place: Place = field(default_factory=Place)
    partial: TransferList | None = None  # None: everything is to be compared
    reason: str = ""  # of a full one
    changes: Sequence[Change] | None = None  # since the last record, where it counts
    is_usable: bool = False  # whether there will be a new record
    last_full: int = 0  # nanoseconds since 1970
    number: str | None = None  # of the transfer, for a server that keeps tokens
    server: Mapping[str, Any] = field(default_factory=dict)  # last_server's words

    def __post_init__(self) -> None:
        self._excluded: frozenset[str] = frozenset()
        self._void: frozenset[str] = frozenset()
        self._above: Mapping[str, int] = {}
        self._old_void = Void(())
        self._sizes: Mapping[str, Any] = {}  # of the last record
        self._size: int | None = None

    @classmethod
    def without(cls, reason: str, number: str | None = None) -> Self:
        """A round in which everything is compared, and nothing recorded."""
        nothing = Selected((), "", Domain((), ()))
        return cls(nothing, None, reason=reason, number=number)

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        try:
            self._begin()
        except (UnfitError, OSError, BytebackError, DamagedError, MemoryError) as error:
            self._give_up(error)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def go_full(self, reason: str) -> None:
        """A partial transfer failed: what it left is compared as a whole."""
        self.partial, self.reason = None, reason
        self.changes = None  # the server may have a part of them already

    def meet(self, token: str | None) -> None:
        """See that the server's token is the one that was taken for it.

        None is of a server that keeps no tokens.
        """
        if token is None:
            self.go_full("the server is an older one")
            self.number, self.is_usable = None, False
        elif self.changes is not None and token != self.token:
            self.go_full(_OTHER_TREE)

    def watch_full(self) -> Missed | None:
        """The check of a full push by the record; None if the record does not count."""
        if self.changes is None or self.partial is not None:
            return None
        return Missed(self.changes, self._old_void)

    def missed(self, watched: Missed) -> Sequence[str]:
        """The names that have changed without the record's knowledge."""
        try:
            return watched.names(self._read_new, self.place.root)
        except (OSError, DamagedError) as error:
            logger.info("cannot judge the record: %s", error)
            return []

    def count_size(self, told: int) -> int | None:
        """Bytes of all files that the server has now; None if that is not known.

        ``told`` is rsync's word. After a partial push, which saw the changes alone, it
        is the size then and what the walk has found to have come or gone since: right
        but for files that rules leave out by name.
        """
        if self.partial is not None:
            then = [self._sizes.get(key) for key in ("size", "walked_size")]
            size, walked = (value if type(value) is int else None for value in then)
            if size is None or walked is None:
                return None
            told = max(0, size + self._walked.size - walked)
        self._size = told
        return told

    def finish(self, token: str) -> None:
        """Keep the new record, of a transfer that has ended whole, under ``token``."""
        if not self.is_usable:
            return
        try:
            self._finish(token)
        except (UnfitError, OSError, DamagedError) as error:
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        text = error.message if isinstance(error, BytebackError) else error
        logger.info("no record of this backup is kept: %s", text)
        self.is_usable = False
        self.go_full(str(text))

    def _begin(self) -> None:
        old, reason = self._open_old()
        self.reason = self.full_reason or reason
        if not self.reason and self.rhythm.is_due(self.last_full, time.time_ns()):
            self.reason = "it is the day for it"
        self._boot, self._offset = _boot_id(), _clock_offset()
        self._watch = settle.MountWatch()
        self._stack.callback(self._watch.close)
        self._open_new()
        comparison = None
        known = old if old is not None and not reason else None
        if known is not None:
            comparison = Comparison(known.reader, known.void, MAX_CHANGES)
        self._walked = self._walk(old, comparison)
        self.is_usable = True
        if comparison is None or known is None:
            self._excluded = self._first_excluded(old)
            return
        comparison.close()
        self._judge(comparison, known)

    def _open_old(self) -> tuple[_Old | None, str]:
        """The last record if its selection is this one, and why it does not count.

        The reason is empty if it does.
        """
        try:
            file = self._stack.enter_context(self.place.record.open("rb"))
            reader = blocks.Reader(file)
            about = reader.about
            if about["version"] != VERSION:
                return None, "the record is of another version"
            if about["fingerprint"] != self.selected.fingerprint:
                return None, "what is backed up has changed"
            sets = frozenset(about["excluded"]), frozenset(about["void"])
            self.last_full = int(about["full"])
            self._sizes = about
            return _Old(file, reader, *sets, about), self._why_void(about)
        except FileNotFoundError:
            return None, "there is no record yet"
        except (DamagedError, KeyError, TypeError, ValueError) as error:
            return None, f"the record cannot be read: {error}"

    def _why_void(self, about: dict[str, Any]) -> str:
        now = time.time_ns()
        if not self.token:
            return "the server knows of no whole backup"
        if about["token"] != self.token:
            return _OTHER_TREE
        if about["boot"] != _boot_id():
            return "the machine was started anew"
        passed = max(0, now - about["started"])
        if now < about["started"] or about["offset"] - _clock_offset() > (
            STEP_NS + int(passed * SLEW)
        ):
            return "the clock was set back"
        return ""

    def _open_new(self) -> None:
        record = self.place.record
        record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._new = record.with_name(record.name + UNFINISHED)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = self._stack.enter_context(
            os.fdopen(os.open(self._new, flags, 0o600), "wb")
        )
        self._stack.callback(self._new.unlink, missing_ok=True)
        os.fchmod(self._file.fileno(), 0o600)
        self._writer = blocks.Writer(self._file)

    def _walk(self, old: _Old | None, comparison: Comparison | None) -> Walked:
        excluded = old.excluded if old is not None else frozenset[str]()
        domain = self.selected.domain._replace(excluded=excluded)
        walk = Walk(domain, self._writer.add, comparison, self.place.root)
        walked = walk.run()
        self._file.flush()
        return walked

    def _read_new(self) -> Iterator[blocks.Block]:
        with self._new.open("rb") as file:
            yield from blocks.read_unfinished(file)

    def _first_excluded(self, old: _Old | None) -> frozenset[str]:
        """The directories that rules leave out; none where there are too many."""
        if old is not None:
            return frozenset(self._walked.seen_excluded)
        if self._walked.directories > MAX_JUDGED:
            return frozenset()
        with skeleton.names(self.place.run) as names:
            asked = []
            for block in self._read_new():
                for name, _, _, kind in block.entries():
                    if kind == DIRECTORY:
                        path = f"{block.path}/{name}" if block.path else name
                        names.add(path, is_directory=True)
                        asked.append(path)
            kept = names.judge(self.selected.rules)
        return frozenset(path for path in asked if _is_topmost(path, kept))

    def _judge(self, comparison: Comparison, old: _Old) -> None:
        self._excluded = frozenset(self._walked.seen_excluded)
        if comparison.is_cut:
            self.reason = self.reason or "too much has changed"
            return
        changes = list(comparison.changes)
        if comparison.regrouped:
            known = {change.path for change in changes}
            more = names_of(comparison.regrouped, self._read_new())
            changes += [one for one in more if one.path not in known]
        now = self._walked.top
        top = now.ctime == UNKNOWN or old.about["top"] != list(now)
        asked = [(one.path, _type_of(one)) for one in changes]
        kept = skeleton.judge(self.selected.rules, asked, self.place.run)
        self._excluded |= frozenset(_left_out(changes, kept))
        self.changes, self._old_void = changes, Void(old.void)
        partial = make_list(changes, kept, Void(old.void), top=top)
        if len(self._excluded) > MAX_EXCLUDED:
            raise UnfitError("rules leave out too many directories")
        compared = len(partial.rules) * len(partial.names)
        if self.reason:
            return
        if len(partial.rules) > MAX_RULES or compared > MAX_COMPARED:
            self.reason = "too much is gone"
            return
        self.partial = partial
        foreign = self.selected.domain.foreign
        self._above = settle.inodes_of(partial.names, self.place.root, foreign)

    def settle(self) -> None:
        """Right after the transfer: see what may have been out of its way."""
        if not self.is_usable:
            return
        since, root = self._walked.started - RACY_NS, self.place.root
        if self.partial is None:
            own = ((block.path, block.inode) for block in self._read_new())
            self._void = frozenset(settle.moved(own, since, root))
        else:
            self._void = frozenset(settle.moved(self._above.items(), since, root))

    def _finish(self, token: str) -> None:
        if self._watch.has_changed():
            raise UnfitError("something was mounted or unmounted meanwhile")
        if abs(_clock_offset() - self._offset) > STEP_NS:
            raise UnfitError("the clock was set meanwhile")
        if len(self._void) > MAX_VOID:
            raise UnfitError("too many directories changed meanwhile")
        is_full = self.partial is None
        self._writer.finish(
            {
                "version": VERSION,
                "token": token,
                "fingerprint": self.selected.fingerprint,
                "boot": self._boot,
                "offset": self._offset,
                "started": self._walked.started,
                "full": self._walked.started if is_full else self.last_full,
                "size": self._size,
                "walked_size": self._walked.size,
                "top": list(self._walked.top),
                "excluded": sorted(self._excluded),
                "void": sorted(self._void),
                "server": dict(self.server),
            }
        )
        self._file.flush()
        os.fsync(self._file.fileno())
        self._new.replace(self.place.record)


def last_server(place: Place) -> tuple[str, dict[str, Any]] | None:
    """The token that the record is kept under, and the words of its server.

    None if there is no record, or an older one that holds no such words.
    """
    with contextlib.suppress(OSError, DamagedError, KeyError):
        with place.record.open("rb") as file:
            about = blocks.Reader(file).about
        token, server = about["token"], about["server"]
        if isinstance(token, str) and token and isinstance(server, dict):
            return token, server
    return None


def _type_of(change: Change) -> bool:
    now, then = change.is_directory, change.was_directory
    return bool(then if now is None else now)


def _is_topmost(path: str, kept: frozenset[str]) -> bool:
    parent = path.rpartition("/")[0]
    return path not in kept and (not parent or parent in kept)


def _left_out(changes: Sequence[Change], kept: frozenset[str]) -> Iterator[str]:
    """The uppermost directories that rules leave out, of names and those above."""
    for change in changes:
        path, is_directory = change.path, change.is_directory is True
        while path and path not in kept:
            if is_directory and _is_topmost(path, kept):
                yield path
            path, is_directory = path.rpartition("/")[0], True


def _boot_id() -> str:
    return BOOT_ID.read_text(encoding="ascii").strip()


def _clock_offset() -> int:
    """Nanoseconds by which the clock is ahead of the time since the machine's start.

    Exact to MOMENT_NS: a busy machine may stand still for seconds between two calls.
    """
    while True:
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        now = time.time_ns()
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if after - before < MOMENT_NS:
            return now - after
