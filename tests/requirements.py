"""A test whose machine lacks something skips with the reason, or fails."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find_program(name: str) -> Path | None:
    """The place of a program that every administrator would find, or None."""
    found = shutil.which(name, path=SEARCH_PATH)
    return None if found is None else Path(found)


def require_program(name: str) -> Path:
    """The place of a program; without it the test is skipped, and fails under CI."""
    return find_program(name) or do_without(f"{name} is not installed")


def do_without(reason: str) -> NoReturn:
    """Skip the test with a reason; under CI nothing may be missing, so fail it."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
