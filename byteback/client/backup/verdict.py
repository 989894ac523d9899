"""Interprets the end of a transfer: done, done in part, or which failure."""

from __future__ import annotations

import re

from byteback.client.transport.connection import Connection
from byteback.errors import (
    BusyError,
    BytebackError,
    StoreUnavailableError,
    ToolError,
    UnreachableError,
)
from byteback.system.rsync import command
from byteback.system.rsync.command import Outcome
from byteback.system.ssh import openssh
from byteback.wire import failures

NO_ROUTE = (5, 10, 12, 30, 35, openssh.STATUS_FAILED)  # rsync's for a broken line

_HINTS = {
    1: "rsync does not know what is named here: see rsync_flags, rsync_filter and "
    "excludes in /etc/byteback, and the command line",
}
# At the end of a line of "rsync: ...", which always ends in the system's reason: what
# stands before it, and at the end of other lines, may be any file name.
_FULL_DISC = re.compile(r": (?:No space left on device|Disk quota exceeded) \(\d+\)$")
# A backup writes nothing on the client.
_READ_ONLY = re.compile(r": Read-only file system \(\d+\)$")
_ATTRIBUTE = "rsync_xal_set: lsetxattr("
# A file changed under another of its names while it was compared. The server tells its
# files apart now, which this rsync did not wait to hear.
_CHANGED_MEANWHILE = re.compile(
    r'got a block match with no basis file for ".*" \[receiver\]'
)
# get_stat_xattr in rsync's xattrs.c; its first words, for a file's name follows.
_DAMAGED = re.compile(r'Corrupt user\.rsync\.%stat xattr attached to "')
# rsync's last words on a server too old to tell Reason.RSYNC_REFUSED.
_SERVER_REFUSED = re.compile(
    r"rsync error: .* \(code [12]\) at \S+ \[(?:server|Receiver|generator)="
)


def check(outcome: Outcome, connection: Connection) -> None:
    """Raise the error that an outcome means; return for success and for partial."""
    if outcome.is_success:
        return
    said_by_server = connection.transfer_failure(outcome)
    if said_by_server is not None:
        raise _as_rsync_explains(said_by_server, outcome, connection)
    last = [line for line in outcome.stderr_tail if line.startswith("rsync: ")]
    if any(map(_READ_ONLY.search, (*outcome.problems, *last))):
        raise StoreUnavailableError(
            f"the store of {connection.name} is read-only: its disc may have failed",
            hint="its administrator has to see to that; there is nothing to do here",
            details=outcome.stderr_tail,
            reason=failures.Reason.STORE_FAILED,
        )
    if any(map(_is_full_disc, (*outcome.problems, *last))):
        raise BusyError(
            f"the disc of {connection.name} is full",
            hint="try again in some minutes: what was sent is kept. On the server, "
            "'byteback-prune --prune' deletes old snapshots where it may, and says "
            "where it may not",
            details=outcome.stderr_tail,
        )
    if outcome.status == command.PARTIAL:
        return
    if outcome.status == openssh.STATUS_FAILED:
        raise connection.failure(
            outcome.status, outcome.remote_messages or outcome.stderr_tail
        )
    at_once = _comes_at_once(outcome, connection)
    if at_once is not None:
        raise at_once
    raise _failure(outcome, connection)


def _comes_at_once(outcome: Outcome, connection: Connection) -> BusyError | None:
    """The error where the next transfer will find it mended; None if it is another."""
    said = (*outcome.remote_messages, *outcome.stderr_tail)
    if any(map(_CHANGED_MEANWHILE.fullmatch, said)):
        return BusyError(
            f"the transfer to {connection.name} met files with several names",
            reason=failures.Reason.AT_ONCE,
        )
    if any(map(_DAMAGED.match, said)):
        # The server has read the same in its log, and mends it before the next one.
        return BusyError(
            f"{connection.name} met the damaged note of a file's owner and mode",
            hint="a backup has the server mend it",
            details=outcome.stderr_tail,
            reason=failures.Reason.AT_ONCE,
        )
    return None


def _as_rsync_explains(
    error: BytebackError, outcome: Outcome, connection: Connection
) -> BytebackError:
    """The server's word, with its rsync's if that was what refused."""
    if error.reason != failures.Reason.RSYNC_REFUSED:
        return error
    at_once = _comes_at_once(outcome, connection)
    if at_once is not None:
        return at_once
    error.details = _said_by_rsync(outcome)
    return error


def _said_by_rsync(outcome: Outcome) -> tuple[str, ...]:
    """Both rsyncs' standard error, without the server's own words."""
    lines = [f"rsync: {problem}" for problem in outcome.problems]
    lines += [
        line
        for line in (*outcome.remote_messages, *outcome.stderr_tail)
        if not line.startswith(" ") and not failures.is_failure(line)
    ]
    return tuple(dict.fromkeys(lines))


def _is_full_disc(line: str) -> bool:
    """True if a line says that the server's disc is full.

    btrfs says the same of one attribute that is larger than it takes, about 16 KB. A
    disc without room for attributes has none for a snapshot either, and says so then.
    """
    return _FULL_DISC.search(line) is not None and _ATTRIBUTE not in line


def _failure(outcome: Outcome, connection: Connection) -> BytebackError:
    message = f"the transfer to {connection.name} failed: {outcome.meaning}"
    is_line = outcome.status in NO_ROUTE or outcome.status < 0
    refused = [line for line in outcome.stderr_tail if _SERVER_REFUSED.match(line)]
    if refused:
        return ToolError(
            message, details=_said_by_rsync(outcome), status=outcome.status
        )
    if is_line or outcome.status > command.SIGNALLED:
        return UnreachableError(message, details=outcome.stderr_tail)
    hint = _HINTS.get(outcome.status)
    error = ToolError(message, hint, outcome.stderr_tail, outcome.status)
    error.retryable = outcome.is_retryable
    return error
