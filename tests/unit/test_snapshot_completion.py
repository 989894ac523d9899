"""Completing --snapshot asks the server, for a short time, and never complains."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from byteback.cli import _snapshot_names
from byteback.cli.restore import command
from byteback.client.restore.query import Query, Server
from byteback.errors import UnreachableError

OPTION = next(x for x in command.params if x.name == "snapshot")
NAMES = ["2026-11-21T02:00+0000", "2026-11-22T02:00+0000", "current"]


def completed(incomplete: str, **given: object) -> list[str]:
    context = click.Context(command)
    context.params.update(given)
    return [item.value for item in OPTION.shell_complete(context, incomplete)]


def test_names_of_the_server_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Server] = []

    def list_files(server: Server, query: Query) -> SimpleNamespace:
        asked.append(server)
        assert query.scope == "copies"
        entries = [SimpleNamespace(snapshot=name) for name in NAMES]
        return SimpleNamespace(entries=entries)

    monkeypatch.setattr(_snapshot_names, "list_files", list_files)
    key = Path("/other/key")
    assert completed("2026", destination="backup2:", ssh_key=key) == NAMES[:2]
    assert asked == [Server("backup2:", key)]
    assert completed("") == NAMES


def test_a_server_that_fails_offers_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def list_files(*_: object) -> None:
        raise UnreachableError("the server is down")

    monkeypatch.setattr(_snapshot_names, "list_files", list_files)
    assert completed("") == []
    assert capfd.readouterr() == ("", "")


def test_a_slow_server_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_snapshot_names, "list_files", lambda *_: time.sleep(600))
    monkeypatch.setattr(_snapshot_names, "LIMIT_S", 0.1)
    started = time.monotonic()
    assert completed("") == []
    assert time.monotonic() - started < 300
