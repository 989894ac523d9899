"""byteback-status on the second server: a copy that falls behind is an alarm."""

from __future__ import annotations

import json
import os
import time

from tests.integration.replicate.world import SOURCE, First, Second

Servers = tuple[First, Second]


def alarms(second: Second) -> dict[str, str]:
    """The alarms about copies: kind and message."""
    shown = json.loads(second.program("byteback-status", "--json").stdout)
    return {
        f"{alarm['client']}/{alarm['kind']}": alarm["message"]
        for alarm in shown["alarms"]
        if alarm["client"] or alarm["kind"].startswith("replica")
    }


def age(second: Second, seconds: float) -> None:
    """Have the last round and the set-up been so long ago."""
    path = second.root / ".byteback" / "replicas" / f"{SOURCE}.json"
    before = time.time() - seconds
    os.utime(second.directory / "from", (before, before))
    if path.exists():
        found = second.round() | {"done": before, "began": before, "tried": before}
        path.write_text(json.dumps(found))


def test_behind_refused_and_well_again(servers: Servers) -> None:
    first, second = servers
    assert alarms(second) == {}
    age(second, 27 * 3600)
    assert "was set up 27 hours ago" in alarms(second)["/replica-behind"]
    names = first.history("www", 3, 2, 1, 0.1)
    second.replicate()
    assert alarms(second) == {}
    # A name of the second's own history is another snapshot on the first.
    first.delete("www", names[1])
    first.snapshot("www", 2)
    second.replicate(status=1)
    assert "is another snapshot there" in alarms(second)["/replica-refused"]
    first.delete("www", names[1])
    second.replicate()
    assert alarms(second) == {}
    age(second, 30 * 3600)
    assert "last up to date 30 hours ago" in alarms(second)["/replica-behind"]
    second.replicate()
    # That it was fetched a moment ago makes no client's backup younger.
    first.history("old", 12, 11, 10)
    second.replicate()
    assert "its newest good backup is 10 days old" in alarms(second)["old/stale"]


def test_a_first_server_that_cannot_be_reached(servers: Servers) -> None:
    _, second = servers
    first_of_all = second.directory / "from"
    before = first_of_all.read_text()
    first_of_all.write_text("ssh://byteback@127.0.0.1:9/\n")
    told = second.replicate("--all", status=12).stderr
    assert "cannot be reached" in told
    assert "cannot be reached" in str(second.round()["problems"])
    first_of_all.write_text(before)
    second.replicate("--all")
    second.replicate("--from", "byteback@nowhere.example:", status=10)
    second.replicate("--all", "--from", before.strip(), status=2)
    second.replicate("--set-up", status=2)
