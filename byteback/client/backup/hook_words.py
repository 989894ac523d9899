"""Which hooks a backup runs, and what they are told about it."""

from __future__ import annotations

from byteback.errors import BytebackError, IncompleteBackupError, foreseen

PRE, POST, FINALLY = "pre-backup.d", "post-backup.d", "finally-backup.d"


def told_of(error: BaseException) -> dict[str, str]:
    """What the finally-hooks are told about a run that did not simply succeed."""
    error = foreseen(error) or error
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
