"""Runs an administrator's own programs before and after a backup.

The rules of names and order are run-parts(8)'s, without needing Debian's run-parts.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path

from byteback.errors import ToolError, escape, quote
from byteback.tools import process

logger = logging.getLogger(__name__)

PRE, POST, FINALLY = "pre-backup.d", "post-backup.d", "finally-backup.d"
TIME_LIMIT_S = 6 * 3600.0  # a database dump may take hours, but not for ever

_NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def find_hooks(directory: Path) -> list[Path]:
    """The executables of ``directory`` whose names run-parts would take, in order."""
    try:
        names = sorted(entry.name for entry in directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    paths = [directory / name for name in names if _NAME.fullmatch(name)]
    return [path for path in paths if path.is_file() and os.access(path, os.X_OK)]


def run_hooks(directory: Path, environment: Mapping[str, str]) -> None:
    """Run every hook of ``directory``; their output goes to the log.

    Raises ToolError, with what the hook printed last, for the first that fails or
    takes longer than the time limit; those behind it are not run.
    """
    for hook in find_hooks(directory):
        _run(hook, environment)


def _run(hook: Path, environment: Mapping[str, str]) -> None:
    running = process.start(
        [hook],
        stderr=process.TO_STDOUT,
        extra_env=environment,
        new_session=True,
    )
    try:
        output, _ = running.communicate(timeout=TIME_LIMIT_S)
    except process.TimeoutExpired:
        raise ToolError(
            f"hook {quote(str(hook))} did not end within {TIME_LIMIT_S / 3600:g} hours"
        ) from None
    finally:
        process.stop_group(running)
        if running.stdout is not None:
            running.stdout.close()
    for line in output.decode("utf-8", "surrogateescape").splitlines():
        logger.info("%s: %s", hook.name, escape(line))
    if running.returncode != 0:
        raise ToolError(
            f"hook {quote(str(hook))} {process.describe_status(running.returncode)}",
            details=process.last_lines(output),
            status=running.returncode,
        )
