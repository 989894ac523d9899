"""What becomes of a transfer that the kernel suddenly will not confine."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import sentinel

import pytest

from byteback.errors import PolicyError
from byteback.server import transfer
from byteback.server.rsync_options import FILES_FROM
from byteback.server.settings import ServerSettings
from byteback.tools import sandbox


@pytest.fixture
def unconfined(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which confining fails, and running without would work."""

    def fail(_job: sandbox.Job) -> sandbox.Running:
        raise OSError("not today")

    def go_on(_job: sandbox.Job) -> sandbox.Running:
        return sandbox.Running(sentinel.process, "none")

    monkeypatch.setattr(sandbox, "start", fail)
    monkeypatch.setattr(sandbox, "start_unconfined", go_on)


def job(*words: str) -> sandbox.Job:
    return sandbox.Job(Path("/usr/bin/rsync"), words, Path("/srv"), sandbox.READ)


@pytest.mark.usefixtures("unconfined")
def test_names_inside_the_protocol_are_never_read_unconfined() -> None:
    settings = ServerSettings(confinement="auto")
    with pytest.raises(PolicyError, match="cannot confine"):
        transfer._start(job("--server", "--sender", FILES_FROM), settings)
    assert transfer._start(job("--server"), settings) == (sentinel.process, "none")


@pytest.mark.usefixtures("unconfined")
def test_a_policy_that_requires_confinement_is_kept() -> None:
    with pytest.raises(PolicyError, match="cannot confine"):
        transfer._start(job("--server"), ServerSettings(confinement="require"))
