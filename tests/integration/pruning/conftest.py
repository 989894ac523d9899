"""Stores to prune."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import ServerUser
from tests.integration.pruning.store import BTRFS_STAND_IN, PruneStore


@pytest.fixture
def volume_size() -> int:
    """One GiB: small enough to be filled to the last byte."""
    return 1 << 30


@pytest.fixture
def store(installed: Path, server_user: ServerUser) -> PruneStore:
    """An empty store on a small volume."""
    return PruneStore(server_user, installed)


@pytest.fixture
def btrfs_stand_in() -> Iterator[Path]:
    """Where to put a script that is found before the real btrfs."""
    BTRFS_STAND_IN.parent.mkdir(parents=True, exist_ok=True)
    yield BTRFS_STAND_IN
    BTRFS_STAND_IN.unlink(missing_ok=True)
