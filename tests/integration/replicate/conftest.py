"""A first and a second server for a whole module: each test has its own clients."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import (
    CONFIGURATION,
    STORE_MARK,
    SshServer,
    find_user,
    forget_client,
    mounted_volume,
    remove_user,
)
from tests.integration.programs import run_program
from tests.integration.replicate.world import First, Second, second_server

VOLUME_SIZE = 2 << 30


@pytest.fixture(scope="module")
def first(installed: Path, sshd: SshServer) -> Iterator[First]:
    """A first server without clients."""
    forget_client()
    with mounted_volume(VOLUME_SIZE) as volume:
        try:
            program = installed / "byteback-setup-server"
            run_program([program, "--directory", volume, "--no-schedule"])
            yield First(find_user(), installed, sshd)
        finally:
            forget_client()
            remove_user()
            shutil.rmtree(STORE_MARK.parent, ignore_errors=True)
            shutil.rmtree(CONFIGURATION, ignore_errors=True)


@pytest.fixture(scope="module")
def servers(first: First) -> Iterator[tuple[First, Second]]:
    """Both, and the second one may fetch."""
    with second_server(first, VOLUME_SIZE) as second:
        second.set_up()
        yield first, second
