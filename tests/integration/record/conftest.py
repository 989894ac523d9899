"""Fixtures for backups that send changes alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from byteback.client.record import keeper, walk
from tests.integration.record.machine import RACY_NS, Machine, mounted_disc
from tests.integration.record.proofs import record


@pytest.fixture(scope="module")
def disc() -> Iterator[Path]:
    """A file system of a client's."""
    with mounted_disc("ext4") as place:
        yield place


@pytest.fixture
def machine(disc: Path, tmp_path: Path) -> Machine:
    """A client with a few old files that were sent and recorded."""
    made = Machine(disc, tmp_path)
    for name in ("a", "d/x", "d/y", "d/sub/z", "e/w", "f/v"):
        path = made.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"contents of {name}")
    os.sync()
    record(made)
    return made


@pytest.fixture
def soon_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust ctimes sooner: a test of seconds would know no old files otherwise."""
    monkeypatch.setattr(walk, "RACY_NS", RACY_NS)
    monkeypatch.setattr(keeper, "RACY_NS", RACY_NS)


@pytest.fixture(scope="session")
def nightly_s(request: pytest.FixtureRequest) -> float | None:
    """The seconds for which the long tests go on; None in an ordinary run."""
    seconds: float | None = request.config.getoption("--nightly")
    return seconds
