"""How the server says on standard error that it has not done what was asked.

``byteback-receive: error: what happened`` or ``byteback-receive: busy: ...``, and
``  hint: what to do`` in the next line: the form in which all programs complain, as
``cli/_boundary.py`` prints it. Then ``  status: 9``, the session's exit status, for a
client's rsync passes that on only sometimes. rsync and ssh may have written before and
after it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from byteback.errors import BusyError

_MARK = re.compile(r"byteback-receive: (error|busy): ")
_HINT = "hint: "
_STATUS = re.compile(r" +status: ([0-9]{1,3})", re.ASCII)
AT_ONCE = "try again at once"  # the hint of a busy server that need not be waited for


def is_failure(line: str) -> bool:
    """Whether a line is the server's own word that it failed, refused or is busy."""
    return _MARK.match(line) is not None


def is_busy(line: str) -> bool:
    """Whether the server says in this line that the client may come back later."""
    match = _MARK.match(line)
    return match is not None and match[1] == "busy"


def parse_failure(lines: Sequence[str]) -> tuple[str, ...]:
    """What the server said last, from its sentence on, without the mark before it.

    All the lines where it said nothing of the kind.
    """
    starts = [number for number, line in enumerate(lines) if is_failure(line)]
    if not starts:
        return tuple(lines)
    said = lines[starts[-1] :]
    return tuple(_MARK.sub("", line) for line in said if not _STATUS.fullmatch(line))


def format_status(status: int) -> str:
    """The line that tells a session's exit status."""
    return f"  status: {status}"


def parse_status(lines: Sequence[str]) -> int | None:
    """The exit status of what the server said last.

    An older server tells none: then only "busy" has a known one.
    """
    starts = [number for number, line in enumerate(lines) if is_failure(line)]
    if not starts:
        return None
    for line in lines[starts[-1] :]:
        told = _STATUS.fullmatch(line)
        if told:
            return int(told[1])
    return BusyError.exit_status if is_busy(lines[starts[-1]]) else None


def parse_hint(lines: Sequence[str]) -> str | None:
    """What the server says that can be done about it."""
    for line in lines:
        if line.strip().startswith(_HINT):
            return line.strip().removeprefix(_HINT)
    return None
