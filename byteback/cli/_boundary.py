"""The one place where errors become text on standard error and an exit status."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from byteback.errors import BytebackError, escape
from byteback.tools import interrupts

BUG_STATUS = 70


def run(command: object, argv: Sequence[str] | None = None) -> NoReturn:
    """Run a click command and end the process with the status of its outcome."""
    import click

    assert isinstance(command, click.Command)  # noqa: S101 # for the type checker
    ensure_utf8()
    program = command.name or "byteback"
    interrupts.install()
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
        status = report(program, error)
    except Exception:  # noqa: BLE001 # what is left is a bug, and is said to be one
        status = report_bug(program)
    _leave(status)


def ensure_utf8() -> None:
    """Start again in Python's UTF-8 mode if the locale is of another encoding.

    File names are bytes, and are handled as UTF-8 with surrogates throughout. On the
    server the locale may even be the client's choice (sshd's AcceptEnv LC_*).
    """
    if sys.getfilesystemencoding() != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 # ourselves


def report(program: str, error: BytebackError) -> int:
    """Print an error as ``program: error: ...`` and return its exit status."""
    print_error(program, error)
    import logging

    if not sys.stderr.isatty():
        logging.getLogger("byteback").error("%s", error.message)
    return error.exit_status


def print_error(program: str, error: BytebackError) -> None:
    """The house form: what happened, what to do, what the tool itself said."""
    lines = [f"{program}: {error.level}: {escape_line(error.message)}"]
    if error.hint:
        lines.append(f"  hint: {escape_line(error.hint)}")
    lines += [f"  {escape(line)}" for line in error.details[:5]]
    sys.stderr.write("\n".join(lines) + "\n")


def escape_line(text: str) -> str:
    """Our own sentences: values in them are escaped already, so no backslash twice."""
    return "".join(c if c.isprintable() or c == "\n" else escape(c) for c in text)


def report_bug(program: str) -> int:
    """Print the traceback of the exception at hand and ask for a report."""
    import traceback

    sys.stderr.write(
        f"{program}: this is a bug in byteback. Please report it with these lines:\n"
    )
    traceback.print_exc()
    return BUG_STATUS


def _leave(status: int) -> NoReturn:
    try:
        sys.stdout.flush()
    except OSError:
        # The reader went away; without this Python complains again while it exits.
        sys.stdout = None
    sys.exit(status)
