"""The one place where errors become text on standard error and an exit status."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from byteback.errors import BytebackError, as_expected_error, escape
from byteback.system import signals

BUG_STATUS = 70


def run(
    command: object, argv: Sequence[str] | None = None, *, with_fields: bool = False
) -> NoReturn:
    """Run a click command and end the process with the status of its outcome.

    ``with_fields`` also prints an error's fields, for a program at the other end.
    """
    import click

    assert isinstance(command, click.Command)  # noqa: S101 # for the type checker
    ensure_utf8()
    _settle()
    program = command.name or "byteback"
    signals.install()
    try:
        outcome = command.main(
            args=list(argv) if argv is not None else None,
            prog_name=program,
            standalone_mode=False,
        )
        # click hands an Exit's status back as the return value in this mode.
        status = outcome if isinstance(outcome, int) else 0
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        status = error.exit_code
    except click.Abort:
        status = 128 + signal.SIGINT
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except BrokenPipeError:
        status = 128 + signal.SIGPIPE
    except BytebackError as error:
        # A person at a terminal has no use for fields.
        for_program = with_fields and not sys.stderr.isatty()
        status = report(program, error, for_program=for_program)
        if for_program:
            print_fields(error)
    except Exception as error:  # noqa: BLE001 # what is left is a bug, and is said to be one
        failure = as_expected_error(error)
        status = report(program, failure) if failure else report_bug(program)
    _leave(status)


def ensure_utf8() -> None:
    """Start again in Python's UTF-8 mode if the locale is of another encoding.

    File names are bytes, and are handled as UTF-8 with surrogates throughout. On the
    server the locale may even be the client's choice (sshd's AcceptEnv LC_*).
    """
    if sys.getfilesystemencoding() != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 # ourselves


def _settle() -> None:
    """Make good what a caller may have left us without.

    Without standard streams the next files to be opened would take their places. With
    SIGCHLD ignored Python does not learn how a program ended, and takes that for
    status 0. With no umask other users could write to our files.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.umask(os.umask(0o022) | 0o022)


def report(program: str, error: BytebackError, *, for_program: bool = False) -> int:
    """Print an error as ``program: error: ...`` and return its exit status."""
    # What a program at the other end reads gets the general hint of that program.
    if error.hint is None and error.general_hint is not None and not for_program:
        error.hint = error.general_hint.replace("PROGRAM", program)
    print_error(program, error)
    import logging

    logger = logging.getLogger("byteback")
    # Before it is set up it would print the message a second time.
    if logger.handlers and not sys.stderr.isatty():
        logger.error("%s", error.message)
    return error.exit_status


def print_error(program: str, error: BytebackError) -> None:
    """The house form: what happened, what to do, what the tool itself said."""
    lines = [f"{program}: {error.level}: {escape_line(error.message)}"]
    if error.hint:
        lines.append(f"  hint: {escape_line(error.hint)}")
    lines += [f"  {escape(line)}" for line in error.details[:5]]
    with contextlib.suppress(OSError):  # full, or a terminal that went away
        sys.stderr.write("\n".join(lines) + "\n")


def print_fields(error: BytebackError) -> None:
    """Print the fields for the program at the other end (wire/failures.py)."""
    from byteback.wire import failures

    with contextlib.suppress(OSError):
        sys.stderr.write(f"{failures.format_fields(error)}\n")


def end_without_module(program: str, error: ModuleNotFoundError) -> NoReturn:
    """For launchers: say which of the modules that a program needs are missing."""
    failure = as_expected_error(error)
    if failure is None:
        raise error
    sys.exit(report(program, failure))


def escape_line(text: str) -> str:
    """Our own sentences: values in them are escaped already, so no backslash twice."""
    return "".join(c if c.isprintable() or c == "\n" else escape(c) for c in text)


def report_bug(program: str) -> int:
    """Print the traceback of the exception at hand and ask for a report."""
    import traceback

    from byteback.cli import _reports

    sys.stderr.write(f"{program}: {_reports.request()}\n")
    traceback.print_exc()
    return BUG_STATUS


def _leave(status: int) -> NoReturn:
    # The reader went away; without this Python complains again while it exits.
    try:
        sys.stdout.flush()
    except OSError:
        sys.stdout = None
    try:
        sys.stderr.flush()
    except OSError:
        sys.stderr = None
    sys.exit(status)
