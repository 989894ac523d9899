"""Runs a hook that comes with byteback: an error becomes text and an exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from byteback.cli import _boundary
from byteback.errors import BytebackError


def run(name: str, work: Callable[[], object]) -> NoReturn:
    """Do the hook's work and end the process; what is printed goes to the log."""
    _boundary.ensure_utf8()
    try:
        work()
    except BytebackError as error:
        _boundary.print_error(name, error)
        sys.exit(error.exit_status)
    sys.exit(0)
