"""A first server that floods the line, or never ends its answer, ends the wait."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from byteback.errors import BytebackError, RefusedError
from byteback.model.destination import Destination
from byteback.model.status import Replica
from byteback.server.replicate import line
from byteback.server.replicate.line import Line, Said
from byteback.server.replicate.sources import Source
from byteback.server.store import replica_rounds
from byteback.server.store.layout import Store
from byteback.wire import replication

ANSWER = (
    f"{replication.format_header()}\n"
    f'{{"client":"a","snapshots":[]}}\n{replication.format_end(1)}\n'
)
HONEST = f"import os; os.write(2, b'motd' * 999); os.write(1, {ANSWER.encode()!r})"
FLOOD = "import os\nwhile True: os.write({}, bytes(65536))"
NO_END = f"{HONEST}; os.close(1); os.close(2); import time; time.sleep(600)"


@dataclass(frozen=True)
class FakeLine(Line):
    """A line to a program of this machine's, in the place of ssh."""

    code: str = ""

    def _argv(self, command: str) -> list[str]:
        return [sys.executable, "-I", "-S", "-c", self.code, command]


@pytest.fixture
def to(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], FakeLine]:
    """Makes the line, whose bounds are small."""
    monkeypatch.setattr(replication, "MAX_LISTING", 1 << 20)
    source = Source("first", Destination("byteback", "first"))
    return lambda code: FakeLine(source, None, code)


def test_an_honest_answer_is_read(to: Callable[[str], FakeLine]) -> None:
    assert [offer.client for offer in to(HONEST).read_listing().offers] == ["a"]


@pytest.mark.parametrize("stream", [1, 2])
def test_a_flood_is_ended(to: Callable[[str], FakeLine], stream: int) -> None:
    with pytest.raises(RefusedError, match="too long"):
        to(FLOOD.format(stream)).read_listing()


def test_an_answer_without_an_end_is_an_error_of_that_server(
    to: Callable[[str], FakeLine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "END_S", 0.2)
    with pytest.raises(BytebackError, match="does not end its answer"):
        to(NO_END).read_listing()


def test_no_failure_is_too_long_to_be_recorded(
    to: Callable[[str], FakeLine], tmp_path: Path
) -> None:
    """By the record a client is known to be late, so that it must be readable."""
    store = Store(tmp_path)
    store.state.mkdir()
    for words in (b"no room", b"\xff" * 30_000):
        error = to("").failure(Said(b"byteback-receive: error: " + words + b"\n", 9))
        assert error is not None
        told = Replica("first", 1.0, began=1.0, problems=(error.message,) * 20)
        replica_rounds.write(store, told)
        found = replica_rounds.read(store, "first")
        assert found is not None
        assert found.began == 1.0
        assert len(found.problems) == 20
    problems = ("\udcff" * 30_000,) * 20
    replica_rounds.write(store, told._replace(problems=problems))
    assert replica_rounds.read(store, "first") is not None
