"""Kill anything at any moment, again and again: no snapshot is ever wrong.

Between two backups the source changes; during one it does not, so that a snapshot
must be exactly what the source was in the run that asked for it. A longer version
runs for as many seconds as BYTEBACK_NIGHTLY says, with other dice each time.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil

from tests.integration.faults.trees import State, change_at_random, read_state
from tests.integration.faults.world import Running, World
from tests.integration.programs import run_program
from tests.waiting import PATIENCE_S

SEED = 20261122
KILLS = 50
HELPERS = 6  # killed in one run, of which it tries each part up to 1 + RETRIES times
RETRIES = 8
# The parts of a run by what the client starts, in turn, and about how long they last
# in seconds: a kill comes within that time of the part's beginning.
PARTS = {"--ping": 0.25, "rsync --archive": 0.4, "--complete": 0.12}
LONGEST_RUN_S = 1.0
RATE = "30mbit"


class Loop:
    """Rounds of changes, backups and kills, with everything checked after each."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.dice = random.Random(seed)  # noqa: S311 # dice, no secret
        self.kills: dict[str, int] = {}
        self.states: list[State] = []  # all that the source has been
        self.mounts = Path("/proc/self/mountinfo").read_text()

    def round(self) -> None:
        """Change, back up, kill; back up again and kill the server; check."""
        change_at_random(self.world.source, self.dice)
        self.states.append(read_state(self.world.source))
        running = self.world.start(retries=RETRIES, delay_s=0)
        self._kill_client(running)
        self._check_snapshots()
        self.world.let_time_pass()
        if self.dice.random() < 0.5:
            change_at_random(self.world.source, self.dice)
            self.states.append(read_state(self.world.source))
        running = self.world.start(retries=RETRIES, delay_s=0)
        # What dies on the way is the run's own to mend.
        for part in sorted(self.dice.choices(range(len(PARTS)), k=HELPERS)):
            self._kill_helper(running, part)
            self._check_snapshots()
        outcome = running.finish()
        assert outcome.status == 0, (outcome, self.kills)
        self._check_snapshots()
        self.world.let_time_pass()
        assert read_state(self.world.current) == self.states[-1]
        self.world.assert_nothing_left()
        assert Path("/proc/self/mountinfo").read_text() == self.mounts

    def _kill_client(self, running: Running) -> None:
        """Stop the run itself, one way or another, unless it is done by then."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.popen.wait(self.dice.uniform(0, LONGEST_RUN_S))
        if running.popen.poll() is not None:
            assert running.popen.returncode == 0, running.finish()
            return
        number = self.dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        os.kill(running.pid, number)
        self._count(f"byteback-backup {number.name}")
        status = running.popen.wait(PATIENCE_S)
        assert status in (-number, 128 + number, 0), running.finish()

    def _kill_helper(self, running: Running, part: int) -> None:
        """Kill one process of the run, on either side, but never its leader.

        Early in a run there is most to kill; without waiting for its later parts the
        dice would seldom come to them.
        """
        while running.popen.poll() is None and not self._has_begun(part):
            time.sleep(0.01)
        time.sleep(self.dice.uniform(0, list(PARTS.values())[part]))
        candidates = [
            process
            for side in ("client", "server")
            for process in self.world.processes(side)
            if process.pid != running.pid
        ]
        if not candidates or running.popen.poll() is not None:
            return
        victim = self.dice.choice(sorted(candidates, key=lambda process: process.pid))
        with contextlib.suppress(psutil.Error):
            name = victim.name()
            victim.send_signal(self.dice.choice([signal.SIGKILL, signal.SIGTERM]))
            self._count(name)

    def _has_begun(self, part: int) -> bool:
        begun = "\n".join(
            " ".join(process.info["cmdline"] or ())
            for process in psutil.process_iter(["cmdline"])
        )
        return any(words in begun for words in list(PARTS)[part:])

    def _count(self, name: str) -> None:
        self.kills[name] = self.kills.get(name, 0) + 1

    def _check_snapshots(self) -> None:
        """Every snapshot is read-only, and is a state that the source has had."""
        for name in self.world.snapshots():
            tree = self.world.host / name
            shown = run_program(["btrfs", "property", "get", "-ts", tree, "ro"])
            assert shown.stdout == "ro=true\n"
            state = read_state(self.world.copy_in(name))
            assert state in self.states, f"{name} is of no state: {self.kills}"


def test_no_kill_at_any_moment_does_harm(world: World, nightly_s: float | None) -> None:
    seed = SEED if nightly_s is None else int(time.time())
    print(f"seed {seed}")
    world.slow(RATE)
    loop = Loop(world, seed)
    deadline = time.monotonic() + (nightly_s or 0)
    while sum(loop.kills.values()) < KILLS or time.monotonic() < deadline:
        loop.round()
        remove_old_snapshots(world)
    print(f"{sum(loop.kills.values())} kills: {loop.kills}")


def remove_old_snapshots(world: World) -> None:
    """Keep the loop from comparing ever more of them."""
    for name in world.snapshots()[:-3]:
        tree = world.host / name
        run_program(["btrfs", "property", "set", "-ts", tree, "ro", "false"])
        run_program(["btrfs", "subvolume", "delete", tree])
