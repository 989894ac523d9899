"""What the end of a transfer means: done, done in part, or which failure."""

from __future__ import annotations

import re

from byteback.client.transport.connection import Connection
from byteback.errors import BusyError, BytebackError, ToolError, UnreachableError
from byteback.system.rsync import command
from byteback.system.rsync.command import Outcome
from byteback.system.ssh import openssh
from byteback.wire import failures

NO_ROUTE = (5, 10, 12, 30, 35, openssh.STATUS_FAILED)  # rsync's for a broken line

# At the end of the line: what stands before it may be anybody's file name.
_FULL_DISC = re.compile(r": (?:No space left on device|Disk quota exceeded) \(\d+\)$")
_ATTRIBUTE = "rsync_xal_set: lsetxattr("
# A file changed under another of its names while it was compared. The server tells its
# files apart now, which this rsync did not wait to hear.
_CHANGED_MEANWHILE = re.compile(
    r'got a block match with no basis file for ".*" \[receiver\]'
)
_QUOTED_NAME = re.compile(r'"(/?[^"]*)"')


def unread_names(outcome: Outcome) -> list[str]:
    """The names of the files that rsync complained about, each once, in its order."""
    found: dict[str, None] = {}
    for problem in outcome.problems:
        match = _QUOTED_NAME.search(problem)
        if match:
            found[match[1]] = None
    return list(found)


def check(outcome: Outcome, connection: Connection) -> None:
    """Raise the error that an outcome means; return for success and for partial."""
    if outcome.is_success:
        return
    said_by_server = connection.transfer_failure(outcome)
    if said_by_server is not None:
        raise said_by_server
    if any(map(_is_full_disc, (*outcome.problems, *outcome.complaint))):
        raise BusyError(
            f"the disc of {connection.name} is full",
            hint="it makes room by itself as far as it may: see byteback-prune there",
            details=outcome.complaint,
        )
    if outcome.status == command.PARTIAL:
        return
    if outcome.status == openssh.STATUS_FAILED:
        raise connection.failure(outcome.status, outcome.remarks or outcome.complaint)
    if any(map(_CHANGED_MEANWHILE.fullmatch, (*outcome.remarks, *outcome.complaint))):
        raise BusyError(
            f"the transfer to {connection.name} met files with several names",
            reason=failures.Reason.AT_ONCE,
        )
    raise _failure(outcome, connection)


def _is_full_disc(line: str) -> bool:
    """Whether a line says that the server's disc is full.

    btrfs says the same of one attribute that is larger than it takes, about 16 KB. A
    disc without room for attributes has none for a snapshot either, and says so then.
    """
    return _FULL_DISC.search(line) is not None and _ATTRIBUTE not in line


def _failure(outcome: Outcome, connection: Connection) -> BytebackError:
    message = f"the transfer to {connection.name} failed: {outcome.meaning}"
    is_line = outcome.status in NO_ROUTE or outcome.status < 0
    if is_line or outcome.status > command.SIGNALLED:
        return UnreachableError(message, details=outcome.complaint)
    error = ToolError(message, details=outcome.complaint, status=outcome.status)
    error.can_pass = outcome.is_retryable
    return error
