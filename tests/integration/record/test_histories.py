"""Random histories: what is sent in part must leave what a full backup would.

Here the record's own code and rsync work on one machine, so that there is time for many
of them; test_real_histories.py has fewer, through the real programs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from byteback.client.record import keeper, walk
from byteback.client.record.keeper import Round
from tests.integration.record import reference
from tests.integration.record.histories import History
from tests.integration.record.machine import Machine, mounted_disc

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("soon_sure")]

STEPS = 6
SEEDS = 8


@dataclass
class Clock:
    """A clock that can be set back: files changed before are of the future then.

    The kernel's own, by which ctimes are set, belongs to the machine.
    """

    behind_s: int = 0
    CLOCK_BOOTTIME = time.CLOCK_BOOTTIME
    clock_gettime_ns = staticmethod(time.clock_gettime_ns)

    def time_ns(self) -> int:
        """The time that it tells."""
        return time.time_ns() - self.behind_s * 10**9


@pytest.fixture(scope="module", params=["ext4", "btrfs", "xfs"])
def any_disc(request: pytest.FixtureRequest) -> Iterator[Path]:
    """File systems of clients, one after the other."""
    with mounted_disc(request.param) as place:
        yield place


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that the record goes by."""
    made = Clock()
    monkeypatch.setattr(keeper, "time", made)
    monkeypatch.setattr(walk, "time", made)
    return made


def test_histories_leave_what_full_backups_would(
    any_disc: Path, tmp_path: Path, clock: Clock, nightly_s: float | None
) -> None:
    started, seed, partial = time.monotonic(), 0, 0
    while seed < SEEDS or time.monotonic() - started < (nightly_s or 0):
        partial += tell(any_disc, tmp_path, clock, seed)
        seed += 1
    assert partial > seed * STEPS // 3, "most of them should go in part"


def tell(disc: Path, work: Path, clock: Clock, seed: int) -> int:
    """One history; how many of its backups went in part."""
    machine = Machine(disc, work)
    history, partial = History(machine.source, machine.aside, seed), 0
    clock.behind_s = 0
    history.change(40)
    for step in range(STEPS):
        history.change(history.dice.choice((0, 1, 1, 2, 3, 5, 8, 15)))
        time.sleep(history.dice.choice((0, 0.05, 0.1)))
        clock.behind_s = history.dice.choice(
            (0, 0, 0, 0, 0, 0, clock.behind_s, 3, 5000)
        )
        round_ = machine.back_up()
        partial += round_.partial is not None
        wrong = machine.differences()
        about = f"seed {seed}, step {step}: {history.done}\n{round_.partial}"
        assert not wrong, "\n".join([about, *wrong])
    history.change(3)
    watch_full(machine)
    history.close()
    return partial


def watch_full(machine: Machine) -> None:
    """A full comparison must find nothing that the record has not told."""
    with Round(
        machine.selected, machine.token, "to compare", place=machine.place
    ) as round_:
        watched = round_.watch_full()
        if watched is None:  # the last backup was of a kind that leaves no record
            return
        words = [*reference.FULL, *machine.words]
        _, said = reference.run_rsync(words, machine.source, machine.target)
        for line in reference.changed_lines(said):
            watched.take(line)
        assert not round_.missed(watched), said
