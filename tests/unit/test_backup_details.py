"""What a client tells of itself at the end of a backup, and to which servers."""

from __future__ import annotations

import time

import pytest

from byteback.client.backup import run
from byteback.client.backup.shortfall import Shortfall
from byteback.client.record.keeper import Round
from byteback.system.rsync.command import Outcome
from byteback.wire.requests import format_request


@pytest.mark.parametrize("is_known", [True, False])
def test_older_servers_are_told_no_details(is_known: bool) -> None:
    """They refuse a request with a word that they do not know."""
    missing = Shortfall(Outcome(0, files_sent=3, size=5000))
    request = run._request(missing, Round.without("x"), None, with_details=is_known)
    words = format_request(request).split()
    details = [word for word in words if word.startswith(("--size", "--clock"))]
    assert bool(details) is is_known
    assert set(words) - set(details) == {
        *("byteback-receive", "--complete", "--json", "--files=3")
    }
    if is_known:
        assert request.size == 5000
        assert request.clock == pytest.approx(time.time(), abs=600)
