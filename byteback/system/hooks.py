"""Runs an administrator's own programs, those of one directory after the other.

The rules of names and order are run-parts(8)'s, without needing Debian's run-parts.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from byteback.errors import ToolError, escape, quote
from byteback.system import process, signals

logger = logging.getLogger(__name__)

TIME_LIMIT_S = 6 * 3600.0  # a database dump may take hours, but not for ever
READ_WAIT_S = 2.0  # for the rest of a hook's output once it has ended

_NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_LEFT_BEHIND = re.compile(r"^\.|~$|^README|\.(?:dpkg|ucf|rpm)[a-z-]*$")


def find_hooks(directory: Path) -> list[Path]:
    """The executables of ``directory`` whose names run-parts would take, in order."""
    try:
        names = sorted(entry.name for entry in directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    paths = [directory / name for name in names if _NAME.fullmatch(name)]
    return [path for path in paths if path.is_file() and os.access(path, os.X_OK)]


def ignored_hooks(directory: Path) -> list[str]:
    """A sentence for each file of ``directory`` that will never run, and why.

    What editors and package managers leave beside a file is passed over.
    """
    try:
        paths = sorted(directory.iterdir())
    except OSError:
        return []
    reasons = {
        path: _why_ignored(path) for path in paths if not _LEFT_BEHIND.search(path.name)
    }
    return [
        f"{quote(str(path))} is not run as a hook: {why}"
        for path, why in reasons.items()
        if why is not None
    ]


def _why_ignored(path: Path) -> str | None:
    if path.is_symlink() and not path.exists():
        return "it is a link that leads nowhere"
    if not path.is_file():
        return "it is no file"
    if not _NAME.fullmatch(path.name):
        return "only letters, digits, - and _ may be in its name"
    if not os.access(path, os.X_OK):
        return f"it is not executable (chmod +x {path})"
    return None


def run_hooks(directory: Path, environment: Mapping[str, str]) -> None:
    """Run every hook of ``directory``; their output goes to the log.

    Raises ToolError, with what the hook printed last, for the first that fails or
    takes longer than the time limit; those behind it are not run.
    """
    for hook in find_hooks(directory):
        _run(hook, environment)


def run_all_hooks(directory: Path, environment: Mapping[str, str]) -> None:
    """Run every hook of ``directory``, whatever becomes of those before it.

    An alarm that cannot be raised must not keep a snapshot mounted. Raises the first
    failure when all have run; the others are logged. A signal still ends it at once.
    """
    first: ToolError | None = None
    for hook in find_hooks(directory):
        try:
            _run(hook, environment)
        except ToolError as error:
            if first is not None:
                logger.error("%s", error.message)
            first = first or error
    if first is not None:
        raise first


def _run(hook: Path, environment: Mapping[str, str]) -> None:
    printed: list[str] = []  # its last lines
    with signals.block_signals():
        running = process.start(
            [hook],
            stderr=process.TO_STDOUT,
            extra_env=environment,
            in_child=process.dying_with_parent(),
            new_session=True,
        )
        assert running.stdout is not None  # noqa: S101 # for the type checker
        reader = threading.Thread(
            target=_log_output, args=(hook.name, running.stdout, printed), daemon=True
        )
        reader.start()
        try:
            with signals.allow_signals():
                # Not until its output ends: a service that it started in the
                # background may hold that open for years.
                status = running.wait(TIME_LIMIT_S)
        except process.TimeoutExpired:
            raise ToolError(
                f"hook {quote(str(hook))} did not end within "
                f"{TIME_LIMIT_S / 3600:g} hours",
                hint=f"mend it, or take it out of {hook.parent}",
                details=printed,
            ) from None
        finally:
            process.stop_group(running)
            reader.join(READ_WAIT_S)
    if status != 0:
        raise ToolError(
            f"hook {quote(str(hook))} {process.describe_status(status)}",
            hint=f"mend it, or take it out of {hook.parent}",
            details=printed,
            status=status,
        )


def _log_output(name: str, stream: IO[bytes], printed: list[str]) -> None:
    with stream:
        for raw in stream:
            line = raw.decode("utf-8", "surrogateescape").rstrip("\r\n")
            logger.info("%s: %s", name, escape(line))
            if line.strip():
                printed.append(line)
                del printed[: -process.DETAIL_LINES]
