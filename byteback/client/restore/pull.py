"""The transfer of a restore: rsync's command line, and what its end means."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from byteback.client.transport import compression
from byteback.client.transport.connection import Connection
from byteback.client.transport.retry import RetryPolicy, retrying
from byteback.errors import ToolError, UnreachableError
from byteback.model.rsync_names import plain_name
from byteback.system.confinement import write_limits
from byteback.system.rsync import command
from byteback.system.rsync.command import Outcome, Progress
from byteback.wire import requests

# Files are written beside the old ones and take their place when they are whole, so
# that a restore that is cut off leaves no live file in pieces; what had come of a
# large one is kept in PARTIAL_DIRECTORY and used by the next attempt. Without
# --inplace, --sparse is safe, and files get their holes back.
PARTIAL_DIRECTORY = ".byteback-partial"
OPTIONS = (
    "--archive",
    "--acls",
    "--xattrs",
    "--hard-links",
    "--numeric-ids",
    "--sparse",
    f"--partial-dir={PARTIAL_DIRECTORY}",
    "--relative",
    "--from0",
    "--no-protect-args",  # the server must see what is asked for
    "--stats",
    "--no-human-readable",
)
# Times to the nanosecond: else a file that differs from its backup by less than a
# second passes for unchanged. With --update the same option would take a file that is
# up to two seconds newer for an older one (rsync's generator.c), so never both.
EXACT_TIMES = ("--modify-window=-1",)
KEEP_NEWER = ("--update", "--info=skip1")
# What a dry run prints: no more, where rsync would add " -> " and a link's target.
DRY_RUN = ("--dry-run", "--out-format=%i %l %n")
RETRIES = RetryPolicy(number=3, delay_s=5.0)

# Options of rsync_flags that would delete or move files where a restore goes to, or
# that contradict our own. Those in the second set are followed by a value.
_UNWANTED = ("--del", "--remove", "--inplace", "--append", "--force", "--prune-empty")
_UNWANTED_WITH_VALUE = ("--partial-dir", "--max-delete", "--files-from", "--backup-dir")

_KEPT = re.compile(r"(.+) is newer")
_CHANGE = re.compile(
    r"(?:\*(\w+)|([<>ch.])([fdLDS])(\S{9}| {9})) +(\d+) (.+)", re.ASCII | re.DOTALL
)


@dataclass(frozen=True)
class Change:
    """One line of a dry run."""

    # "create", "replace", "adjust" (owner, mode, times) or "delete" (with --delete)
    action: str
    path: str  # below the destination; a directory's ends in a slash
    size: int = 0  # bytes of the file in the backup
    is_only_time_of_directory: bool = False


@dataclass(frozen=True)
class Pull:
    """All that one rsync needs to know."""

    connection: Connection
    snapshot: str
    directory: Path
    io_timeout_s: int
    flags: Sequence[str] = ()  # of rsync_flags
    keeps_newer: bool = False
    is_dry_run: bool = False
    # Whether directories above what is asked for are made as they were backed up.
    with_parents: bool = True
    # Words of our own for a dry run that compares: a restore deletes nothing.
    rules: Sequence[str] = ()
    compresses: bool = False


@dataclass
class Heard:
    """What rsync said about single files."""

    kept: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    directory: Path | None = None  # where to, to tell what is in the way there

    def take(self, line: str) -> None:
        """Read one line of rsync's standard output."""
        change = parse_change(line)
        if change is not None:
            self.changes.append(self._as_it_is(change))
        elif kept := _KEPT.fullmatch(line):
            self.kept.append(kept[1])

    def count(self) -> tuple[int, int]:
        """How much was heard, for forget."""
        return len(self.kept), len(self.changes)

    def forget(self, kept: int, changes: int) -> None:
        """Forget what came after that: it will be said again."""
        del self.kept[kept:]
        del self.changes[changes:]

    def _as_it_is(self, change: Change) -> Change:
        """rsync takes for new what is of another kind than what has the name now."""
        if self.directory is None or change.action != "create":
            return change
        is_there = os.path.lexists(self.directory / change.path.rstrip("/"))
        return replace(change, action="replace") if is_there else change


def safe_flags(flags: Sequence[str]) -> list[str]:
    """``flags`` without what only a backup may do: they serve the backup as well."""
    kept: list[str] = []
    words = iter(flags)
    for word in words:
        if word in _UNWANTED_WITH_VALUE:
            next(words, None)
        elif not word.startswith((*_UNWANTED, *_UNWANTED_WITH_VALUE)):
            kept.append(word)
    return kept


def parse_change(line: str) -> Change | None:
    """Read a line of a dry run (rsync(1), --itemize-changes); None for any other."""
    match = _CHANGE.fullmatch(line)
    if match is None:
        return None
    message, kind, file_type, attributes, size, name = match.groups()
    path = plain_name(name)
    if message is not None:
        return Change("delete", path) if message == "deleting" else None
    if set(attributes) == {"+"}:
        return Change("create", path, int(size))
    is_only_time = file_type == "d" and set(attributes) <= {".", "t"}
    is_the_same = kind == "." or attributes.isspace()  # but for being a hard link
    action = "adjust" if is_the_same else "replace"
    return Change(action, path, int(size), is_only_time)


def run_pull(
    pull: Pull,
    names: Sequence[str],
    *,
    recursive: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
    heard: Heard | None = None,
) -> Outcome:
    """Fetch ``names`` from one snapshot, continuing after failures that can pass.

    Without ``recursive`` a directory comes without what is in it. The outcome is a
    success, or partial: all is there but what rsync complained about.
    Raises UnreachableError when no attempt is left, the server's own error if it
    refuses, and ToolError for failures that trying again does not mend.
    """
    with tempfile.NamedTemporaryFile(prefix="byteback-restore-") as file:
        for name in names:
            file.write(name.encode("utf-8", "surrogateescape") + b"\0")
        file.flush()
        argv = pull_argv(pull, file.name, recursive=recursive)
        if on_progress is not None:
            argv.insert(1, "--info=progress2")

        before = heard.count() if heard else (0, 0)

        def attempt() -> Outcome:
            if heard:
                heard.forget(*before)
            outcome = command.transfer(
                argv,
                on_progress=on_progress,
                on_line=heard.take if heard else None,
                confine=_confinement(pull),
            )
            _check(outcome, pull.connection)
            return outcome

        return retrying(attempt, RETRIES, renew=pull.connection.renew)


def _confinement(pull: Pull) -> Callable[[], None] | None:
    """What keeps a server in other hands from files outside of the destination.

    A dry run can write nowhere. Where everything is the destination, or rsync_flags
    may name files of their own, there is nothing to hold on to. ssh makes its socket.
    """
    if any("/" in flag for flag in safe_flags(pull.flags)):
        return None
    if not pull.is_dry_run and pull.directory == Path("/"):
        return None
    control = pull.connection.control_path
    writable = [] if control is None else [control.parent]
    if not pull.is_dry_run:
        writable.append(pull.directory)
    return write_limits.only_below(writable)


def pull_argv(pull: Pull, list_file: str, *, recursive: bool) -> list[str]:
    """rsync's command line for one attempt."""
    directory = str(pull.directory).rstrip("/")
    return [
        "rsync",
        *OPTIONS,
        f"--files-from={list_file}",
        f"--timeout={pull.io_timeout_s}",
        *(["--recursive"] if recursive else []),
        *([] if pull.with_parents else ["--no-implied-dirs"]),
        *(KEEP_NEWER if pull.keeps_newer else EXACT_TIMES),
        *([compression.OPTION] if pull.compresses else []),
        *safe_flags(pull.flags),
        *(DRY_RUN if pull.is_dry_run else []),
        *pull.rules,
        f"--rsync-path={requests.format_pull_program(pull.snapshot)}",
        f"--rsh={pull.connection.remote_shell}",
        "--",
        f"{pull.connection.destination.rsync_host}:./",
        f"{directory}/",
    ]


def _check(outcome: Outcome, connection: Connection) -> None:
    """Raise the error that an outcome means; return for success and for partial."""
    if outcome.is_success:
        return
    said_by_server = connection.transfer_failure(outcome)
    if said_by_server is not None:
        raise said_by_server
    if any("No space left on device" in line for line in outcome.complaint):
        raise ToolError(
            "the disc is full",
            hint="make room, or restore elsewhere with --to; the same command "
            "continues where this one stopped",
            details=outcome.complaint,
            status=outcome.status,
        )
    if outcome.status == command.PARTIAL:
        return
    message = f"the transfer from {connection.name} failed: {outcome.meaning}"
    if outcome.is_retryable:
        raise UnreachableError(
            message,
            hint="the same command continues where this one stopped",
            details=outcome.complaint,
        )
    raise ToolError(message, details=outcome.complaint, status=outcome.status)
