"""rsync as a client runs it: its output, its exit statuses, its progress."""

from __future__ import annotations

import logging
import os
import re
import select
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from byteback.errors import escape
from byteback.system import process, signals
from byteback.system.rsync.stall import Watch

logger = logging.getLogger(__name__)

SUCCESS = 0
PROTOCOL = 2
PARTIAL = 23  # some files or attributes could not be transferred
NOT_LINKED = 13  # among other errors that rsync makes itself
NO_MEMORY = 22
VANISHED = 24  # some source files vanished meanwhile, as files do

SIGNALLED = 128  # plus a signal: how a shell tells that a program was ended by one

# What can pass by itself (rsync(1), EXIT VALUES; 255 is ssh's, 35 a connection that
# timed out). 1 to 4 are usage and protocol: those stay. 14 to 16, 19 and 20 are of an
# rsync that was ended on this side or, in a reboot, on the other; a user's
# interrupt is none of them, for it ends this program before it looks at a status.
RETRYABLE = frozenset({5, 10, 11, 12, 14, 15, 16, 19, 20, 21, 22, 30, 35, 255})

MEANINGS = {
    1: "syntax or usage error",
    2: "protocol incompatibility",
    3: "errors selecting input or output files",
    4: "the other side does not support what was asked",
    5: "the other side could not start",
    10: "error in socket I/O",
    11: "error in file I/O (is the disc full?)",
    12: "the connection broke",
    14: "rsync's processes lost each other",
    15: "one of rsync's processes crashed",
    16: "one of rsync's processes was killed",
    19: "rsync was stopped by a signal",
    20: "rsync was stopped by a signal",
    21: "waiting for a child failed",
    22: "out of memory",
    23: "some files could not be transferred",
    24: "some files vanished meanwhile",
    25: "the --max-delete limit stopped deletions",
    30: "time-out in data send or receive",
    35: "time-out waiting for the connection",
    255: "the ssh connection failed",
}

MAX_PROBLEMS = 1000  # lines kept of what rsync complains about
MAX_REMARKS = 20
MAX_UNLINKED = 1_000_000
TICK_S = 1.0  # between two looks at whether rsync is at work
NO_DELETIONS = "IO error encountered -- skipping file deletion"

_PROGRESS = re.compile(
    r"\s*(\d[\d,.]{0,40})\s+(\d{1,3})%\s+([\d.,]+[kKMGT]?B/s)\s+(\d+:\d\d:\d\d)",
    re.ASCII,
)
_STATISTIC = re.compile(r"([A-Z][A-Za-z ]+): ([\d,.]{1,40})", re.ASCII)
_LINE_END = re.compile(rb"[\r\n]")
_VANISHED = re.compile(r"(?:file|directory|link|special|device) has vanished: ")


# At the end of the line stands the system's reason, for EMLINK.
_UNLINKED = re.compile(
    r'rsync: (?:\[\w+\] )?link "(.+)" => (.+) failed: Too many links \(\d+\)', re.DOTALL
)


class Unlinked(NamedTuple):
    """A name that the other side could not make: its file has too many already."""

    path: str  # the other side's own, as rsync prints it
    target: str  # another name of the file, as it was sent

    @property
    def stderr_tail(self) -> str:
        """rsync's own words."""
        return f'link "{self.path}" => {self.target} failed: Too many links'


@dataclass(frozen=True)
class Progress:
    """One reading of --info=progress2."""

    transferred: int  # bytes
    percent: int
    rate: str  # as rsync writes it: 12.34MB/s
    eta: str  # h:mm:ss


@dataclass(frozen=True)
class Outcome:
    """The end of a transfer. The counts are rsync's --stats; 0 if it died first."""

    status: int  # exit status, or minus the signal that ended it
    files: int = 0  # all that were looked at, directories and links too
    files_sent: int = 0  # regular files that were transferred
    bytes_sent: int = 0  # on the wire
    bytes_received: int = 0
    files_created: int = 0  # of all, those that the other side did not have
    problems: tuple[str, ...] = ()  # rsync's complaints about single files
    stderr_tail: tuple[str, ...] = ()  # its last lines on standard error
    remote_messages: tuple[str, ...] = ()  # what ssh and the other side said there
    size: int = 0  # bytes of all files, each name counted
    size_sent: int = 0  # bytes of the files that were sent, themselves
    # What is gone here may still be there: after some errors rsync deletes nothing.
    kept_deleted: bool = False
    unlinked: tuple[Unlinked, ...] = ()  # which are no problems yet
    is_stalled: bool = False  # it was ended because it did nothing any more

    @property
    def all_problems(self) -> tuple[str, ...]:
        """``problems``, and the complaints that begin in no particular way.

        A transfer that ended with PARTIAL has one at least. What else is said on
        standard error has failed a transfer as a whole.
        """
        if self.is_success:
            return self.problems
        others = [line for line in self.remote_messages if not _VANISHED.match(line)]
        said = (*self.problems, *others)
        return said if said or self.unlinked else (self.meaning,)

    @property
    def has_problems(self) -> bool:
        """True if anything is said of files, but for what is unlinked."""
        return bool(
            self.problems or set(map(_VANISHED.match, self.remote_messages)) & {None}
        )

    @property
    def is_success(self) -> bool:
        """All there, but for files that vanished meanwhile."""
        return self.status in (SUCCESS, VANISHED)

    @property
    def is_retryable(self) -> bool:
        """True if trying again may help. A killed rsync or ssh counts."""
        return self.status in RETRYABLE or self.status < 0 or self.status > SIGNALLED

    @property
    def meaning(self) -> str:
        """The status in words."""
        if self.status < 0:
            return f"rsync was ended by signal {-self.status}"
        if SIGNALLED < self.status < SIGNALLED + 65:
            number = self.status - SIGNALLED
            return f"the other side was ended by signal {number}"
        words = MEANINGS.get(self.status, "rsync failed")
        return f"{words} (rsync status {self.status})"


def transfer(
    argv: Sequence[str],
    *,
    on_progress: Callable[[Progress], None] | None = None,
    on_line: Callable[[str], None] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
    stdin: int | None = None,
    confine: Callable[[], None] | None = None,
    extra_env: Mapping[str, str] | None = None,
    patience_s: float | None = None,
) -> Outcome:
    """Run rsync to its end, whatever that is, and tell how it went.

    ``argv`` must hold --stats and --no-human-readable for the counts, and
    --info=progress2 for ``on_progress``; ``on_line`` gets every other line of standard
    output. ``confine`` is run in the child, before it becomes rsync. One that has done
    nothing for ``patience_s`` seconds is ended. On an exception, a signal's included,
    rsync is stopped first.
    """
    said, complained = _Said(on_progress, on_line), _Complained()
    with signals.block_signals():
        running = process.start(
            argv,
            stdin=process.NULL if stdin is None else stdin,
            cwd=cwd,
            pass_fds=pass_fds,
            in_child=_in_child(confine),
            extra_env=extra_env,
            new_session=True,  # its ssh is stopped with it
        )
        assert running.stderr is not None  # noqa: S101 # for the type checker
        reader = threading.Thread(
            target=complained.read, args=(running.stderr,), daemon=True
        )
        reader.start()
        try:
            with signals.allow_signals():
                is_stalled = _follow(running, said, patience_s)
                status = running.wait()
        finally:
            process.stop_group(running)
        # Not after a signal: a shared connection keeps rsync's standard error open
        # until all is through that is on its way, and its messages are not needed then.
        reader.join(timeout=5)
    count = said.statistics.get
    return Outcome(
        status,
        files=count("Number of files", 0),
        files_created=count("Number of created files", 0),
        files_sent=count("Number of regular files transferred", 0),
        size=count("Total file size", 0),
        size_sent=count("Total transferred file size", 0),
        bytes_sent=count("Total bytes sent", 0),
        bytes_received=count("Total bytes received", 0),
        problems=tuple(complained.problems),
        stderr_tail=tuple(complained.tail),
        remote_messages=tuple(complained.remote_messages),
        kept_deleted=said.kept_deleted,
        unlinked=tuple(complained.unlinked),
        is_stalled=is_stalled,
    )


def _follow(running: process.Process, said: _Said, patience_s: float | None) -> bool:
    """Take all that rsync prints; True if it had to be ended."""
    assert running.stdout is not None  # noqa: S101 # for the type checker
    watch = None
    if patience_s is not None:
        watch = Watch(running.pid, patience_s, tick_s=TICK_S)
    with running.stdout as stream:
        for line in _lines(stream, watch):
            said.take(line)
    if watch is None or not watch.has_stalled:
        return False
    process.stop_group(running)
    return True


def _in_child(confine: Callable[[], None] | None) -> Callable[[], None]:
    die_with_us = process.dying_with_parent()

    def arrange() -> None:
        die_with_us()
        if confine is not None:
            confine()

    return arrange


def parse_progress(line: str) -> Progress | None:
    """Read a line of --info=progress2, or None if it is none."""
    match = _PROGRESS.match(line)
    if match is None:
        return None
    transferred = int(re.sub(r"[,.]", "", match[1]))
    return Progress(transferred, int(match[2]), match[3], match[4])


class _Said:
    """Standard output, line by line."""

    def __init__(
        self,
        on_progress: Callable[[Progress], None] | None,
        on_line: Callable[[str], None] | None,
    ) -> None:
        self.statistics: dict[str, int] = {}
        self.kept_deleted = False
        self._on_progress = on_progress
        self._on_line = on_line

    def take(self, line: str) -> None:
        """Take one line."""
        progress = parse_progress(line) if self._on_progress else None
        if progress is not None and self._on_progress is not None:
            self._on_progress(progress)
            return
        found = _STATISTIC.match(line)
        if found:
            digits = re.sub(r"[,.].*" if "." in found[2] else ",", "", found[2])
            if digits.isdigit():
                self.statistics[found[1]] = int(digits)
        elif line == NO_DELETIONS:
            self.kept_deleted = True
        if line.strip():
            if logger.isEnabledFor(logging.DEBUG):  # there may be millions of lines
                logger.debug("rsync: %s", escape(line))
            if self._on_line is not None:
                self._on_line(line)


def _lines(stream: IO[bytes], watch: Watch | None) -> Iterator[str]:
    """Lines that end in CR or LF; progress2 rewrites its own line with CRs.

    They end early when ``watch`` sees a standstill.
    """
    pending = b""
    for chunk in _chunks(stream.fileno(), watch):
        *whole, pending = _LINE_END.split(pending + chunk)
        for line in whole:
            yield line.decode("utf-8", "surrogateescape")
    if pending:
        yield pending.decode("utf-8", "surrogateescape")


def _chunks(fd: int, watch: Watch | None) -> Iterator[bytes]:
    waiting = select.poll()
    waiting.register(fd, select.POLLIN)
    while True:
        if watch is None or waiting.poll(TICK_S * 1000):
            chunk = os.read(fd, 65536)
            if not chunk:
                return
            yield chunk
        elif watch.is_stalled():
            return


class _Complained:
    """Standard error, sorted by who speaks there."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.tail: list[str] = []
        self.remote_messages: list[str] = []
        self.unlinked: list[Unlinked] = []

    def read(self, stream: IO[bytes]) -> None:
        """Take all lines, to the end of ``stream``."""
        with stream:
            for raw in stream:
                line = raw.decode("utf-8", "surrogateescape").rstrip("\r\n")
                if line.strip():
                    logger.debug("rsync: %s", escape(line))
                    self._take(line)

    def _take(self, line: str) -> None:
        self.tail.append(line)
        del self.tail[: -process.DETAIL_LINES]
        unlinked = _UNLINKED.fullmatch(line)
        if unlinked is not None and len(self.unlinked) < MAX_UNLINKED:
            self.unlinked.append(Unlinked(unlinked[1], unlinked[2]))
        elif line.startswith("rsync: "):
            if len(self.problems) < MAX_PROBLEMS:
                self.problems.append(line.removeprefix("rsync: "))
        elif not line.startswith("rsync "):
            self.remote_messages.append(line)
            # The first and the last: a banner may come before what counts.
            del self.remote_messages[MAX_REMARKS:-MAX_REMARKS]
