"""The server's words on standard error for a request that was not done.

``byteback-receive: error: what happened`` or ``byteback-receive: busy: ...``, and
``  hint: what to do`` in the next line: the form in which all programs complain, as
``cli/_boundary.py`` prints it. Then come fields for programs: ``  status: 9``, the
session's exit status, which a client's rsync passes on only sometimes, and
``  reason: at-once``, a Reason, where the client decides by it. With ``moved`` comes
``  moved-to: ...``, which wire/moved.py reads. rsync and ssh may have written before
and after these lines. Ours are five at most, which is as many as a client keeps.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

from byteback.errors import BusyError, BytebackError, MovedError

_MARK = re.compile(r"byteback-(?:setup-client-)?receive: (error|busy): ")
_HINT = "hint: "
_STATUS = re.compile(r" +status: ([0-9]{1,3})", re.ASCII)
_REASON = re.compile(r" +reason: ([a-z-]{1,40})", re.ASCII)
_MOVED_TO = re.compile(r" +moved-to: ([!-~]+(?: [!-~]+)*)")


class Reason(StrEnum):
    """Why the server refused or failed, where the client acts on it."""

    AT_ONCE = "at-once"  # come again without a pause: the server has made ready
    RSYNC_REFUSED = "rsync-refused"  # the server's rsync; it has said why before
    STALE_TREE = "stale-tree"  # current is not what the client takes it for
    NAME_TAKEN = "name-taken"  # the name belongs to another key
    STORE_MISSING = "store-missing"  # the store is not mounted
    STORE_FAILED = "store-failed"  # the store is read-only, or its disc gives errors
    DISC_FULL = "disc-full"  # the store's disc has no room for what was asked
    RETIRED = "retired"  # the client was retired: its key is known, and refused
    REPLICA = "replica"  # the server has a copy of the client, and takes no backups
    OTHER_MACHINE = "other-machine"  # this key was last used by another machine
    MOVED = "moved"  # the client's backups go to another server now


def is_failure(line: str) -> bool:
    """True if a line is the server's own word that it failed, refused or is busy."""
    return _MARK.match(line) is not None


def is_busy(line: str) -> bool:
    """True if the server says in this line that the client may come back later."""
    match = _MARK.match(line)
    return match is not None and match[1] == "busy"


def parse_failure(lines: Sequence[str]) -> tuple[str, ...]:
    """The server's last failure, from its sentence on, without the mark before it.

    All the lines where it said nothing of the kind.
    """
    failure = _last_failure(lines)
    if not failure:
        return tuple(lines)
    return tuple(_MARK.sub("", line) for line in failure if not _is_field(line))


def format_fields(error: BytebackError) -> str:
    """The lines that tell an error's status and reason to a program."""
    lines = [f"  status: {error.exit_status}"]
    if error.reason is not None:
        lines.append(f"  reason: {error.reason}")
    if isinstance(error, MovedError):
        lines.append(f"  moved-to: {error.moved_to}")
    return "\n".join(lines)


def parse_status(lines: Sequence[str]) -> int | None:
    """The exit status of the server's last failure in ``lines``.

    None where it sent no status. Older servers send none: of these, "busy" alone has
    a known one.
    """
    failure = _last_failure(lines)
    for line in failure[1:]:
        match = _STATUS.fullmatch(line)
        if match:
            return int(match[1])
    return BusyError.exit_status if failure and is_busy(failure[0]) else None


def parse_reason(lines: Sequence[str]) -> str | None:
    """The reason of the server's last failure in ``lines``, None where it sent none.

    A newer server may send a reason that Reason does not have.
    """
    return _field(_REASON, lines)


def parse_moved_to(lines: Sequence[str]) -> str | None:
    """Where a client's backups go now, as format_moved of wire/moved.py wrote it."""
    return _field(_MOVED_TO, lines)


def _field(field: re.Pattern[str], lines: Sequence[str]) -> str | None:
    for line in _last_failure(lines)[1:]:
        match = field.fullmatch(line)
        if match:
            return match[1]
    return None


def parse_hint(lines: Sequence[str]) -> str | None:
    """The server's hint."""
    for line in lines:
        if line.strip().startswith(_HINT):
            return line.strip().removeprefix(_HINT)
    return None


def _last_failure(lines: Sequence[str]) -> Sequence[str]:
    """The lines from the server's last failure on; none if it reported no failure."""
    starts = [number for number, line in enumerate(lines) if is_failure(line)]
    return lines[starts[-1] :] if starts else ()


def _is_field(line: str) -> bool:
    return any(field.fullmatch(line) for field in (_STATUS, _REASON, _MOVED_TO))
