"""The growth rule holds for what is fetched: no history goes for what is made up."""

from __future__ import annotations

import json
import os
import time

from tests.integration.replicate.world import SOURCE, First, Second
from tests.integration.source_tree import MIB

Servers = tuple[First, Second]


def free_percent(second: Second) -> float:
    second.run("btrfs", "filesystem", "sync", second.root)
    view = os.statvfs(second.root)
    return 100 * view.f_bavail / view.f_blocks


def limits(second: Second, low: float, high: float) -> None:
    second.settings(f"min_percent = {low:.3f}\nmax_percent = {high:.3f}\n")


def test_a_new_client_gets_no_room_that_pruning_would_make(servers: Servers) -> None:
    """The first server says how many clients there are; those that are here go on."""
    first, second = servers
    old = first.history("known", 9)
    second.replicate()
    limits(second, 1, free_percent(second) + 0.5)
    old += first.history("known", 8)
    made_up = first.history("made-up", 9, 8)
    told = second.replicate(status=14).stderr
    assert "there is no room for 'made-up', which is new here" in told
    assert "--approve made-up" in told
    assert second.snapshots("made-up") == []
    assert second.snapshots("known") == old
    assert second.round()["missing"] == 2
    second.program("byteback-prune", "--approve", "made-up")
    second.replicate()
    assert second.snapshots("made-up") == made_up
    second.settings("")


def test_a_later_client_is_new_for_a_month(servers: Servers) -> None:
    """One that was small at first gets no more room than what is free, either."""
    first, second = servers
    since = time.time() - 40 * 86400
    record = second.round() | {"began": since}
    path = second.root / ".byteback" / "replicas" / f"{SOURCE}.json"
    path.write_text(json.dumps(record))
    note = second.root / ".byteback" / "hosts" / "known.replica"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"since": since}))
    names = first.history("later", 9)
    old = first.history("known", 7)
    second.replicate()
    assert second.round()["began"] == since
    assert second.snapshots("later") == names
    limits(second, 1, free_percent(second) + 0.5)
    old += first.history("known", 6)
    names += first.history("later", 6)
    assert "no room for 'later'" in second.replicate(status=14).stderr
    assert second.snapshots("known")[-2:] == old
    assert second.snapshots("later") == names[:1]
    second.program("byteback-prune", "--approve", "later")
    second.replicate()
    assert second.snapshots("later") == names
    second.settings("")
    path.write_text(json.dumps(second.round() | {"began": time.time()}))


def test_one_large_backup_in_many_snapshots(servers: Servers) -> None:
    """It is stopped, and others' history stays until an administrator approves."""
    first, second = servers
    victims = first.history("victim", 30, 25, 20, 15, 10)
    first.write("grows", "file", os.urandom(8 * MIB))
    first.snapshot("grows", 1)
    second.replicate()
    # More snapshots than the second server would take of a client in that time.
    names = []
    for number in range(5):
        first.write("grows", f"file-{number}", os.urandom(24 * MIB))
        names.append(first.snapshot("grows", -0.02 - number / 100))
    free = free_percent(second)
    limits(second, free - 3, free - 1)
    told = second.replicate(status=14).stderr
    assert "suddenly larger" in told
    assert set(names) - set(second.snapshots("grows"))
    assert free_percent(second) < free - 2
    second.program("byteback-prune", "--prune")
    assert second.snapshots("victim") == victims
    # The control: once it is approved, the others' history makes room for it.
    second.program("byteback-prune", "--approve", "grows")
    limits(second, free_percent(second) + 0.1, free - 1)
    second.program("byteback-prune", "--prune")
    assert len(second.snapshots("victim")) < len(victims)
