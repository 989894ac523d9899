"""Reads the reports of several servers from files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from byteback.errors import UsageError, quote
from byteback.model import several_servers
from byteback.model.several_servers import MAX_BYTES
from byteback.model.status import Report


def read(paths: Sequence[Path], now: float) -> Report:
    """One report of all servers whose reports are in ``paths``.

    Raises UsageError for a file that cannot be read, or is no report.
    """
    return several_servers.merge([_read_file(path) for path in paths], now)


def _read_file(path: Path) -> Report:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{quote(str(path))}: {error.strerror}") from None
    if len(text) > MAX_BYTES:
        raise UsageError(f"{quote(str(path))} is too large for a report")
    try:
        return several_servers.read_report(text)
    except UsageError as error:
        raise UsageError(f"{quote(str(path))}: {error.message}", error.hint) from None
