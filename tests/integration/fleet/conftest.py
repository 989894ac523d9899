"""A store with sealed snapshots, and what byteback-clients does to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import CONFIGURATION, ServerUser, SshServer
from tests.integration.fleet.store import FleetStore


@pytest.fixture
def volume_size() -> int:
    """One GiB."""
    return 1 << 30


@pytest.fixture
def store(
    installed: Path, server_user: ServerUser, sshd: SshServer, tmp_path: Path
) -> Iterator[FleetStore]:
    """An empty store whose snapshots root seals."""
    made = FleetStore(server_user, installed, sshd, tmp_path)
    made.settings("sealed = true\n")
    yield made
    (CONFIGURATION / "server.toml").unlink()
    made.forget()
