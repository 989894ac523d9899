"""Every failure that byteback foresees, each with the exit status it leads to.

The table of exit statuses is here and nowhere else; the man pages repeat it and a
test compares the two.
"""

from __future__ import annotations

import errno
import os
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
# What a disc gives when it fails, and btrfs when it finds its own data damaged.
DISC_FAILURES = frozenset({errno.EROFS, errno.EIO, errno.ENXIO, errno.EUCLEAN})
ENVIRONMENT_ERRNOS = SHORTAGES | DISC_FAILURES | {errno.EFBIG}


# The modules that are not Python's own, and what brings them.
PACKAGES = {
    "click": "python3-click",
    "paramiko": "python3-paramiko",
    "cryptography": "python3-cryptography",
    "psutil": "python3-psutil",
    "xattr": "python3-xattr",
}


class BytebackError(Exception):
    """A failure with a sentence for the user.

    ``message`` says what happened to what, ``hint`` what to do about it, and
    ``details`` holds lines that the failing program itself printed. ``reason`` is a
    word of wire/failures.py, if another program decides by it.
    """

    exit_status = 1
    # Printed where an error has no hint of its own; PROGRAM stands for its name.
    general_hint: str | None = "PROGRAM --verbose shows what it does before this"
    level = "error"  # the word that begins the message
    retryable = False  # whether the same thing may work a little later

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
    general_hint = "PROGRAM --help and byteback(7) say what is possible"


class NotRootError(UsageError):
    """Only root can do this. One status for all programs: they were called wrongly."""

    def __init__(self, message: str, hint: str = "run this with sudo") -> None:
        super().__init__(message, hint)


class IncompleteBackupError(BytebackError):
    """The backup is done and kept, but some files could not be read."""

    exit_status = 3
    general_hint = "mend or exclude what is named here"
    level = "warning"


class IncompleteRestoreError(BytebackError):
    """The restore is done, but some files could not be restored."""

    exit_status = 3
    general_hint = "see what is named here"


class RefusedError(BytebackError):
    """The server will not serve this request; asking again will not help."""

    exit_status = 9
    general_hint = "the server's log says more: journalctl -t byteback-receive"


class MovedError(RefusedError):
    """The client's backups go to another server now (D60).

    ``moved_to`` is the field that says where, see wire/moved.py.
    """

    def __init__(self, message: str, hint: str | None, moved_to: str) -> None:
        super().__init__(message, hint, reason="moved")
        self.moved_to = moved_to


class NotSetUpError(BytebackError):
    """Something that set-up makes is missing: destination, key or store."""

    exit_status = 10
    general_hint = "byteback(7) says how to set it up"


class NoSuchClientError(NotSetUpError):
    """No client of this store has the name."""


class StoreError(NotSetUpError):
    """The server's store is not mounted, or cannot be written to.

    ``reason`` says which. Clients are told so by a StoreUnavailableError.
    """


class StoreElsewhereError(StoreError):
    """The store is mounted by hand, and not here: another machine may have it."""


class LockedError(BytebackError):
    """Another living process holds the lock."""

    exit_status = 11
    general_hint = "wait for its end: no lock outlives its process"


class UnreachableError(BytebackError):
    """The server could not be reached, or the connection was lost."""

    exit_status = 12
    general_hint = "try again: what was sent is kept"
    retryable = True


class ToolError(BytebackError):
    """An outside program failed; ``details`` is what it printed."""

    exit_status = 13
    general_hint = "PROGRAM --verbose shows what was started, and all that it said"

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
    general_hint = "byteback(7) says what server.toml can change"


class BusyError(BytebackError):
    """The server cannot serve this request now, but will later."""

    exit_status = 75  # EX_TEMPFAIL of sysexits.h
    general_hint = "try again later"
    level = "busy"
    retryable = True


class StoreUnavailableError(BusyError):
    """A StoreError for the client: it comes again later, and goes on then."""

    level = "error"


class InterruptedBySignalError(BytebackError):
    """A signal asked the program to stop; its exit status is 128 + the signal."""

    general_hint = None

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by signal {signal_number}")
        self.exit_status = 128 + signal_number


def as_expected_error(error: BaseException) -> BytebackError | None:
    """The failure that an exception of Python's own means; None if it is a bug's.

    A machine without room, memory or a sound disc is the administrator's to mend, and
    so is one without a Python module that byteback needs.
    """
    if isinstance(error, MemoryError):
        return BytebackError(
            "this machine is out of memory", hint="free some, and try again"
        )
    if isinstance(error, ModuleNotFoundError):
        return _missing_module(error)
    if isinstance(error, FileNotFoundError) and not _has_working_directory():
        return UsageError(
            "the working directory has been removed",
            hint="change to one that exists, or give absolute paths",
        )
    if not isinstance(error, OSError) or error.errno not in ENVIRONMENT_ERRNOS:
        return None
    where = "" if error.filename is None else f": {quote(error.filename)}"
    return BytebackError(
        f"this machine is in trouble: {error.strerror}{where}",
        hint="see df(1) and the kernel's messages (dmesg)",
    )


def _missing_module(error: ModuleNotFoundError) -> NotSetUpError | None:
    if error.name not in PACKAGES:
        return None
    from importlib.util import find_spec

    missing = [name for name in PACKAGES if find_spec(name) is None]
    packages = " ".join(PACKAGES[name] for name in missing)
    return NotSetUpError(
        f"these Python modules are not installed: {', '.join(missing)}",
        hint=f"on Debian and Ubuntu: apt-get install {packages}",
    )


def _has_working_directory() -> bool:
    try:
        os.getcwd()  # noqa: PTH109 # pathlib is not imported here
    except FileNotFoundError:
        return False
    return True


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
