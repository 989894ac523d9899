"""No first server takes the time that another one is to have."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from byteback.errors import BytebackError, UnreachableError
from byteback.model.replication import OfferedSnapshot, Plan
from byteback.server.replicate import bring, fetch
from byteback.server.replicate.fetch import Outcome
from byteback.server.store.layout import Store
from byteback.server.store.settings import ServerSettings

ALARM_S = 26 * 3600.0  # after which a first server counts as behind
ONE = (OfferedSnapshot("2026-11-01T00:00+0000", ""),)
PLANS = [Plan(client, ONE, ()) for client in ("first", "second", "third")]


def test_a_transfer_ends_when_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bring, "_is_new", lambda *_: False)
    words = (Store(tmp_path), "client", ServerSettings(), "first")
    bring._guard(*words, math.inf)()
    bring._guard(*words, time.monotonic() + 3600)()
    with pytest.raises(bring.TimeOverError):
        bring._guard(*words, time.monotonic() - 1)()


def tried(
    error: BytebackError, ask_again: Callable[[], object] = lambda: None
) -> tuple[list[str], Outcome]:
    """The clients that were tried where the second one fails, and the outcome."""
    clients, outcome = [], Outcome()

    def bring_one(client: str, _: OfferedSnapshot) -> None:
        clients.append(client)
        if client == "second":
            raise error

    fetch._bring_all(PLANS, outcome, bring_one, ask_again)
    return clients, outcome


def test_a_client_that_fails_holds_up_no_other() -> None:
    clients, outcome = tried(BytebackError("no room"))
    assert clients == ["first", "second", "third"]
    assert outcome.problems == ["'second': no room"]
    assert (outcome.brought, outcome.missing) == (2, 1)


def test_a_client_whose_sessions_break_ends_no_round() -> None:
    """Its files may be the reason. Where the line is gone, no other one is tried."""
    gone = UnreachableError("the first server cannot be reached")
    clients, outcome = tried(gone)
    assert clients == ["first", "second", "third"]
    assert outcome.problems == ["'second': the first server cannot be reached"]
    asked = []

    def ask_again() -> None:
        asked.append("again")
        raise gone

    with pytest.raises(UnreachableError):
        tried(gone, ask_again)
    assert asked == ["again"]


def test_no_client_is_tried_after_the_time_and_that_is_no_error() -> None:
    clients, outcome = tried(bring.TimeOverError("over"))
    assert clients == ["first", "second"]
    assert outcome.problems == []
    assert (outcome.brought, outcome.missing) == (1, 2)


def test_all_have_their_turn_before_the_alarm() -> None:
    assert fetch.share_s(1) == math.inf
    for count in (2, 3, 10):
        assert 0 < fetch.share_s(count) * count < ALARM_S
