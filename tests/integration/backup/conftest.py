"""A small tree to back up."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def source() -> Iterator[Path]:
    """A small tree to back up; not below /tmp, which is left out by itself."""
    with tempfile.TemporaryDirectory(prefix="source-", dir="/srv") as directory:
        source = Path(directory)
        (source / "etc").mkdir()
        (source / "etc/hosts").write_text("127.0.0.1 localhost\n")
        (source / "home").mkdir()
        (source / "home/a b").write_text("spaces")
        yield source
