"""The transfer of a restore: rsync's command line, and what its end means."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from byteback.client.restore import damaged
from byteback.client.restore.changes import ENVIRONMENT, FORMAT, RsyncOutput
from byteback.client.transport import compression
from byteback.client.transport.connection import Connection
from byteback.client.transport.retry import RetryPolicy, retrying
from byteback.errors import ToolError, UnreachableError
from byteback.model import rsync_flags
from byteback.system import mounts
from byteback.system.confinement import write_limits
from byteback.system.rsync import command
from byteback.system.rsync.command import Outcome, Progress
from byteback.wire import requests

logger = logging.getLogger(__name__)

# Files are written beside the old ones and take their place when they are whole, so
# that a restore that is cut off leaves no live file in pieces; what had come of a
# large one is kept in PARTIAL_DIRECTORY and used by the next attempt. Without
# --inplace, --sparse is safe, and files get their holes back (D59).
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
    # Times to the nanosecond: else a file that differs from its backup by less than a
    # second passes for unchanged.
    "--modify-window=-1",
)
# For what becomes newer while rsync is at work; what was so before is not asked for
# (D45). Beside --modify-window=-1 that is only what is newer by two seconds or more.
KEEP_NEWER = ("--update", "--info=skip1")
DRY_RUN = ("--dry-run", f"--out-format={FORMAT}")
LIST_FIRST = "--no-inc-recursive"
RETRIES = RetryPolicy(number=3, delay_s=5.0)
# A transfer that has done nothing for so many times its --timeout stands still.
STANDSTILL = 3
# The slowest server reads so many bytes a second of a file that is here already, about
# which it says nothing before it has seen its end.
SLOWEST_READ = 10_000_000

# Options of rsync_flags that would delete or move files where a restore goes to, leave
# out what was asked for, or contradict our own.
_UNWANTED = rsync_flags.FILTERS | {
    *("append", "append-verify", "backup", "backup-dir", "compare-dest", "copy-dest"),
    *("dry-run", "existing", "files-from", "force", "from0", "ignore-existing"),
    *("ignore-non-existing", "inc-recursive", "inplace", "link-dest", "list-only"),
    *("log-format", "max-delete", "max-size", "min-size", "only-write-batch"),
    *("out-format", "partial-dir", "prune-empty-dirs", "quiet", "read-batch"),
    *("recursive", "relative", "size-only", "stop-after", "stop-at", "suffix"),
    *("time-limit", "update", "write-batch"),
}
_UNWANTED_BEGIN = ("del", "remove-")


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
    # Whether the list of all files comes before the first of them. Where it comes in
    # pieces, rsync can wait for ever for a name of a file with several names (D46).
    lists_first: bool = False
    # Mount points that rsync does not see: those of what does not answer.
    hidden: Sequence[str] = ()
    # So many bytes the server may have to read before it says a word.
    silent_bytes: int = 0

    @property
    def patience_s(self) -> float:
        """The time that rsync may do nothing before it counts as standing still."""
        return STANDSTILL * self.io_timeout_s + self.silent_bytes / SLOWEST_READ


def safe_flags(flags: Sequence[str]) -> list[str]:
    """``flags`` without what only a backup may do: they serve the backup as well."""
    return [
        word
        for flag in rsync_flags.parse_flags(flags)
        if flag.name not in _UNWANTED and not flag.name.startswith(_UNWANTED_BEGIN)
        for word in flag.words
    ]


def run_pull(
    pull: Pull,
    names: Sequence[str],
    *,
    recursive: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
    heard: RsyncOutput | None = None,
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
        before = heard.count() if heard else (0, 0)

        def transfer(job: Pull) -> Outcome:
            if heard:
                heard.forget(*before)
            argv = pull_argv(job, file.name, recursive=recursive)
            if on_progress is not None:
                argv.insert(1, "--info=progress2")
            return command.transfer(
                argv,
                on_progress=on_progress,
                on_line=heard.take if heard else None,
                confine=_restriction(job),
                extra_env=ENVIRONMENT,
                patience_s=job.patience_s,
            )

        def attempt() -> Outcome:
            outcome = transfer(pull)
            other = _other_list(pull, outcome)
            if other is not None:
                outcome = transfer(other)
            damaged.check(outcome, pull.snapshot)
            _check(outcome, pull.connection)
            return outcome

        return retrying(attempt, RETRIES, renew=pull.connection.renew)


def problems_of(outcome: Outcome) -> tuple[str, ...]:
    """The files that could not be brought, or not as they were, in rsync's words.

    A file that vanished from the backup meanwhile is one: it was asked for.
    """
    if outcome.status == command.SUCCESS:
        return ()
    if outcome.status == command.VANISHED:
        return (*outcome.problems, *outcome.remote_messages) or (outcome.meaning,)
    return outcome.all_problems


def _other_list(pull: Pull, outcome: Outcome) -> Pull | None:
    """``pull`` with its list of files sent in the other way, if that may help."""
    is_lost = outcome.is_stalled or outcome.status == command.PROTOCOL
    if is_lost and not pull.lists_first:
        logger.warning("rsync lost its way and ended; trying in another way")
        return replace(pull, lists_first=True)
    if outcome.status == command.NO_MEMORY and pull.lists_first:
        logger.warning("rsync had no memory for a list of all files at once")
        return replace(pull, lists_first=False)
    return None


def _restriction(pull: Pull) -> Callable[[], None] | None:
    """What rsync's process does before it becomes rsync; None for nothing."""
    # In this order: what is confined may not change its mounts.
    steps = [mounts.hiding(pull.hidden)] if pull.hidden else []
    limits = _confinement(pull)
    if limits is not None:
        steps.append(limits)

    def apply() -> None:
        for step in steps:
            step()

    return apply if steps else None


def _confinement(pull: Pull) -> Callable[[], None] | None:
    """The limits that keep a hostile server from files outside the destination.

    A dry run can write nowhere. Where everything is the destination, or rsync_flags
    may name files of their own, there is nothing to hold on to. ssh makes its socket.
    """
    if any("/" in flag for flag in safe_flags(pull.flags)):
        return None
    if not pull.is_dry_run and pull.directory == Path("/"):
        return None
    writable = pull.connection.writable
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
        *([LIST_FIRST] if pull.lists_first else []),
        *(KEEP_NEWER if pull.keeps_newer else []),
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
    if outcome.is_stalled:
        raise ToolError(
            f"the transfer from {connection.name} stood still and was ended",
            hint="the same command continues where this one stopped; what it stopped "
            "at can be left out",
            details=outcome.stderr_tail,
            status=outcome.status,
        )
    said_by_server = connection.transfer_failure(outcome)
    if said_by_server is not None:
        raise said_by_server
    if any("No space left on device" in line for line in outcome.stderr_tail):
        raise ToolError(
            "the disc is full",
            hint="make room, or restore elsewhere with --to; the same command "
            "continues where this one stopped",
            details=outcome.stderr_tail,
            status=outcome.status,
        )
    if outcome.status == command.PARTIAL:
        return
    message = f"the transfer from {connection.name} failed: {outcome.meaning}"
    if outcome.is_retryable:
        raise UnreachableError(
            message,
            hint="the same command continues where this one stopped",
            details=outcome.stderr_tail,
        )
    raise ToolError(message, details=outcome.stderr_tail, status=outcome.status)
