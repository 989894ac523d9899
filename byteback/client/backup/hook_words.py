"""Which hooks a backup runs, and what they are told about it."""

from __future__ import annotations

import logging
import sys
import sysconfig
from pathlib import Path

import byteback
from byteback.errors import BytebackError, IncompleteBackupError, as_expected_error
from byteback.system import hooks

logger = logging.getLogger(__name__)

PRE, POST, FINALLY = "pre-backup.d", "post-backup.d", "finally-backup.d"
SHIPPED = "postgresql"  # one of those that come with byteback


def warn_of_ignored(directory: Path) -> None:
    """Log each file in /etc/byteback's three directories of hooks that is none."""
    for warning in ignored_hooks(directory):
        logger.warning("%s", warning)


def ignored_hooks(directory: Path) -> list[str]:
    """The same, to be shown."""
    return [
        warning
        for name in (PRE, POST, FINALLY)
        for warning in hooks.ignored_hooks(directory / name)
    ]


def shipped_directory() -> Path | None:
    """The directory of byteback's own hooks; None if they are not installed."""
    # Of a checkout, of a virtual environment, of a package.
    beside = Path(byteback.__file__).resolve().parents[1] / "hooks"
    roots = dict.fromkeys([sysconfig.get_path("data"), sys.prefix])
    places = [beside, *(Path(root, "share/byteback/hooks") for root in roots)]
    return next((place for place in places if (place / SHIPPED).is_file()), None)


def outcome_environment(error: BaseException) -> dict[str, str]:
    """The environment of the finally-hooks after a run that did not simply succeed."""
    error = as_expected_error(error) or error
    if isinstance(error, IncompleteBackupError):
        result = "incomplete"
    elif isinstance(error, KeyboardInterrupt):
        return {"BYTEBACK_RESULT": "interrupted", "BYTEBACK_EXIT_STATUS": "130"}
    elif isinstance(error, BytebackError):
        result = "interrupted" if error.exit_status > 128 else "failure"
    else:
        return {"BYTEBACK_RESULT": "failure", "BYTEBACK_EXIT_STATUS": "70"}
    return {
        "BYTEBACK_RESULT": result,
        "BYTEBACK_EXIT_STATUS": str(error.exit_status),
        "BYTEBACK_MESSAGE": error.message,
    }
