"""A first server that floods the line, or never ends its answer, ends the wait."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from byteback.errors import BytebackError, RefusedError
from byteback.model.destination import Destination
from byteback.server.replicate import line
from byteback.server.replicate.line import Line
from byteback.server.replicate.sources import Source
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
