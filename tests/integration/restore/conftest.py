"""A client with a tree of all kinds of files in its backup."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import EnrolledClient
from tests.integration.restore.restorer import (
    SOURCE,
    Restorer,
    make_kinds,
    make_metadata,
    make_names,
)


@pytest.fixture
def source() -> Iterator[Path]:
    """A tree with everything that is hard to restore."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    SOURCE.mkdir(parents=True)
    try:
        make_names(SOURCE / "names")
        make_kinds(SOURCE / "kinds")
        make_metadata(SOURCE / "metadata")
        yield SOURCE
    finally:
        shutil.rmtree(SOURCE, ignore_errors=True)


@pytest.fixture
def restorer(enrolled_client: EnrolledClient, source: Path, tmp_path: Path) -> Restorer:
    """A client whose tree has been backed up once, with one snapshot."""
    work = tmp_path / "work"
    work.mkdir(mode=0o711)
    found = Restorer(enrolled_client, work)
    found.backup()
    return found
