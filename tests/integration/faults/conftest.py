"""The two machines, the same for all tests of a module, as good as new for each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.faults.parts import constants
from tests.integration.faults.world import World, build_world


@pytest.fixture(scope="module")
def shared_world(installed: Path) -> Iterator[World]:
    """Two machines and a cable."""
    with build_world(installed, Path("/var/tmp")) as world:
        yield world


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    """Two machines on which nothing has happened yet."""
    shared_world.reset()
    yield shared_world
    shared_world.mend()
    shared_world.kill_everything()


@pytest.fixture
def with_constants(installed: Path) -> Iterator[Callable[..., None]]:
    """Changes constants in the installed programs, until the end of the test.

    How long byteback waits for a dead line is nobody's to configure; a test that
    waited as long would take minutes.
    """
    with contextlib.ExitStack() as stack:

        def change(module: str, **values: object) -> None:
            stack.enter_context(constants(module, **values))

        yield change


@pytest.fixture(scope="session")
def nightly_s(request: pytest.FixtureRequest) -> float | None:
    """The seconds for which the long tests go on; None in an ordinary run."""
    seconds: float | None = request.config.getoption("--nightly")
    return seconds
