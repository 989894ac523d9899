"""Measures rounds beside plain rsync and btrfs send of the same trees.

Run it alone: tests/machine pytest -m benchmark -s tests/integration/replicate. The two
others are given no ssh and no confinement: they run through a pipe, as root.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.integration.programs import processor_seconds, run_program
from tests.integration.replicate.world import First, Second
from tests.integration.sealing.store import become

pytestmark = pytest.mark.benchmark

FILES, LARGE = 20_000, 256 << 20
CLIENTS = 100
HOUR = 1 / 24


def fill(first: First, client: str) -> Path:
    """A client of many small files and one large one that nothing compresses."""
    dice = random.Random(1)  # noqa: S311 # data for measuring
    current = first.client(client) / "current"
    with become(first.user):
        for number in range(FILES):
            path = current / f"d{number // 100}" / f"f{number}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(dice.randbytes(dice.randrange(200, 8000)))
        (current / "table").write_bytes(os.urandom(LARGE))
    return current


def change(first: First, current: Path) -> None:
    """Rewrite a file in a hundred, and a page in a hundred of the large one."""
    with become(first.user):
        for number in range(0, FILES, 100):
            (current / f"d{number // 100}" / f"f{number}").write_bytes(os.urandom(4000))
        with (current / "table").open("r+b") as file:
            for page in range(0, LARGE // 4096, 100):
                file.seek(page * 4096)
                file.write(os.urandom(4096))


def used(volume: Path) -> int:
    run_program(["btrfs", "filesystem", "sync", volume])
    view = os.statvfs(volume)
    return (view.f_blocks - view.f_bfree) * view.f_frsize


def wire() -> int:
    fields = Path("/proc/net/dev").read_text().split("lo:")[1].split()
    return int(fields[0])


def measure(what: str, who: str, volume: Path, act: Callable[[], object]) -> None:
    """Print one line: seconds, processor seconds of all, MB sent, MB more on disc."""
    space, sent = used(volume), wire()
    began, processor = time.monotonic(), processor_seconds()
    act()
    seconds, worked = time.monotonic() - began, processor_seconds() - processor
    moved, more = (wire() - sent) / 1e6, (used(volume) - space) / 1e6
    print(
        f"{what:<12}{who:<20}{seconds:8.1f} s{worked:8.1f} s of cpu"
        f"{moved:9.1f} MB sent{more:9.1f} MB more"
    )


def test_one_machine(servers: tuple[First, Second]) -> None:
    first, second = servers
    current = fill(first, "big")
    place = second.root / "others"
    place.mkdir()
    (place / "rsync").mkdir()
    before = ""
    for what, days in (("first", 4), ("unchanged", 3), ("1 % changed", 2)):
        if what == "1 % changed":
            change(first, current)
        name = first.snapshot("big", days)
        path = first.root / "big" / name
        print()
        measure(
            what, "byteback-replicate", second.root, partial(second.replicate, "big")
        )
        assert name in second.snapshots("big")
        rsync = [
            *("rsync", "-aHAXX", "--numeric-ids", "--inplace", "--no-whole-file"),
            *("--delete", "--modify-window=-1", "-e", "sh -c 'shift; eval \"$@\"' sh"),
            *(f"{path}/", f"here:{place}/rsync/"),
        ]
        measure(what, "rsync, no ssh", second.root, partial(run_program, rsync))
        base = f"-p {first.root}/big/{before}" if before else ""
        send = f"btrfs send -q {base} {path} | btrfs receive -q {place}"
        measure(
            what,
            "btrfs send, no ssh",
            second.root,
            partial(run_program, ["sh", "-c", send]),
        )
        before = name


def test_a_fleet(servers: tuple[First, Second]) -> None:
    first, second = servers
    second.replicate()
    clients = [f"client-{number}" for number in range(CLIENTS)]
    for client in clients:
        first.history(client, 2)
    print()
    for what in ("first", "no news", "one each", "no news"):
        if what == "one each":
            for client in clients:
                first.history(client, HOUR)
        who = f"{CLIENTS} clients"
        measure(what, who, second.root, second.replicate)
    assert all(len(second.snapshots(client)) == 2 for client in clients)
