"""A store to seal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import CONFIGURATION, ServerUser
from tests.integration.sealing.store import SealedStore


@pytest.fixture
def volume_size() -> int:
    """One GiB."""
    return 1 << 30


@pytest.fixture
def store(installed: Path, server_user: ServerUser) -> Iterator[SealedStore]:
    """An empty store whose snapshots root seals."""
    made = SealedStore(server_user, installed)
    made.settings("sealed = true\n")
    yield made
    (CONFIGURATION / "server.toml").unlink()
