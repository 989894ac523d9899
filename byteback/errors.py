"""Every failure that byteback foresees, each with the exit status it leads to.

The table of exit statuses is here and nowhere else; the man pages repeat it and a
test compares the two.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

EXIT_STATUSES = {
    0: "done",
    1: "failed",
    2: "usage",
    3: "done, but some files could not be read",
    9: "the server refused the request",
    10: "not set up",
    11: "another run holds the lock",
    12: "server unreachable after all retries",
    13: "rsync, btrfs, ssh or a hook failed",
    14: "the server's policy said no",
    70: "a bug in byteback",
    75: "the server is busy: try again later",
}


# Errors of the system that a full disc or a crowded machine makes: they can pass.
SHORTAGES = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.ENFILE, errno.EMFILE, errno.ENOMEM),
        errno.EAGAIN,
    }
)
MISFORTUNES = SHORTAGES | {errno.EROFS, errno.EIO, errno.EFBIG}


class BytebackError(Exception):
    """A failure with a sentence for the user.

    ``message`` says what happened to what, ``hint`` what to do about it, and
    ``details`` holds lines that the failing program itself printed. ``reason`` is a
    word of wire/failures.py, if another program decides by it.
    """

    exit_status = 1
    level = "error"  # the word that begins the message
    can_pass = False  # whether the same thing may work a little later

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        details: Sequence[str] = (),
        reason: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = tuple(details)
        self.reason = reason


class UsageError(BytebackError):
    """The command line or a configuration file says something impossible."""

    exit_status = 2


class IncompleteBackupError(BytebackError):
    """The backup is done and kept, but some files could not be read."""

    exit_status = 3
    level = "warning"


class IncompleteRestoreError(BytebackError):
    """The restore is done, but some files could not be restored."""

    exit_status = 3


class RefusedError(BytebackError):
    """The server will not serve this request; asking again will not help."""

    exit_status = 9


class NotSetUpError(BytebackError):
    """Something that set-up makes is missing: destination, key or store."""

    exit_status = 10


class LockedError(BytebackError):
    """Another living process holds the lock."""

    exit_status = 11


class UnreachableError(BytebackError):
    """The server could not be reached, or the connection was lost."""

    exit_status = 12
    can_pass = True


class ToolError(BytebackError):
    """An outside program failed; ``details`` is what it printed."""

    exit_status = 13

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        details: Sequence[str] = (),
        status: int | None = None,
    ) -> None:
        super().__init__(message, hint, details)
        self.status = status


class PolicyError(BytebackError):
    """The request is legitimate, but the server's policy says not now."""

    exit_status = 14


class BusyError(BytebackError):
    """The server cannot serve this request now, but will later."""

    exit_status = 75  # EX_TEMPFAIL of sysexits.h
    level = "busy"
    can_pass = True


class InterruptedBySignalError(BytebackError):
    """A signal asked the program to stop; its exit status is 128 + the signal."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by signal {signal_number}")
        self.exit_status = 128 + signal_number


def foreseen(error: BaseException) -> BytebackError | None:
    """The failure that an exception of Python's own means; None if it is a bug's.

    A machine without room, memory or a sound disc is the administrator's to mend.
    """
    if isinstance(error, MemoryError):
        return BytebackError("this machine is out of memory")
    if not isinstance(error, OSError) or error.errno not in MISFORTUNES:
        return None
    where = "" if error.filename is None else f": {quote(error.filename)}"
    return BytebackError(f"this machine is in trouble: {error.strerror}{where}")


def quote(text: str | bytes) -> str:
    """``text`` in quotes with control and undecodable characters escaped.

    Every value from outside goes through here before it is printed, so that a file
    or host name cannot send escape sequences to a terminal or forge a log line.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    return f"'{escape(text)}'"


def escape(text: str) -> str:
    """``text`` with control and undecodable characters as backslash escapes."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_escape_character(character) for character in text)


def _escape_character(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    named = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
    if character in named:
        return named[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{{{code:x}}}"
