"""Runs each contestant over the same data and prints one table of ratios."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks import data, finding, scene

A, B = Path("/bench/a"), Path("/bench/b")


@dataclass
class Sample:
    """One run of one command."""

    seconds: float
    wire: int  # bytes on the loopback interface, both directions
    disc: int  # bytes that the store grew by
    cpu: float  # seconds of the whole copy: both sides


@dataclass
class Table:
    """All samples, by step and contestant."""

    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)

    def add(self, step: str, who: str, sample: Sample) -> None:
        """Note one sample."""
        self.samples.setdefault((step, who), []).append(sample)

    def lines(self) -> list[str]:
        """One line a step and contestant, medians, the ratio to plain rsync."""
        head = (
            "step                 who        wall s  ratio    wire MB    disc MB  cpu s"
        )
        found = [head, "-" * len(head)]
        for (step, who), samples in self.samples.items():
            wall = statistics.median(s.seconds for s in samples)
            base = self.samples.get((step, "rsync"), samples)
            ratio = wall / statistics.median(s.seconds for s in base)
            wire = statistics.median(s.wire for s in samples) / 1e6
            disc = statistics.median(s.disc for s in samples) / 1e6
            cpu = statistics.median(s.cpu for s in samples)
            found.append(
                f"{step:20} {who:9} {wall:7.2f} {ratio:6.2f} {wire:10.2f} {disc:10.2f}"
                f" {cpu:6.2f}"
            )
        return found


def measured(store: Path, action: Callable[[], object]) -> Sample:
    """Run ``action`` and count what it cost; the store is synced before and after."""
    before = scene.used_bytes(store)
    wire, cpu = scene.wire_bytes(), scene.cpu_seconds()
    started = time.monotonic()
    action()
    seconds = time.monotonic() - started
    wire, cpu = scene.wire_bytes() - wire, scene.cpu_seconds() - cpu
    return Sample(seconds, wire, scene.used_bytes(store) - before, cpu)


def contestants(
    there: scene.Scene, tree: Path
) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """For each contestant a command to back up ``tree`` and one to restore it."""
    target = Path("/bench/restored")

    def raw_backup() -> None:
        there.run([*there.rsync, "--delete", str(tree), f"root@127.0.0.1:{there.raw}/"])

    def raw_restore() -> None:
        source = f"root@127.0.0.1:{there.raw}/.{tree}"
        there.run([*there.rsync, source, f"{target}/"])

    def byteback_backup() -> None:
        there.run([str(there.bin / "byteback-backup"), "--source", str(tree)])

    def byteback_restore() -> None:
        command = there.bin / "byteback-restore"
        there.run([str(command), "--restore", "--to", str(target), str(tree)])

    return {
        "rsync": (raw_backup, raw_restore),
        "byteback": (byteback_backup, byteback_restore),
    }


def steps_of(there: scene.Scene, tree: Path, name: str, rounds: int) -> Table:
    """First backup, unchanged, changed and restore, the contestants taking turns."""
    table = Table()
    who = contestants(there, tree)
    change = data.change_small if name == "A" else data.change_large
    for contestant, (backup, _) in who.items():
        table.add(f"first {name}", contestant, measured(there.store, backup))
    for number in range(rounds):
        for contestant, (backup, _) in who.items():
            table.add(f"unchanged {name}", contestant, measured(there.store, backup))
        there.forget_snapshot_interval()
        change(tree, seed=100 + number)
        for contestant, (backup, _) in who.items():
            table.add(f"1 % changed {name}", contestant, measured(there.store, backup))
    for _ in range(rounds):
        for contestant, (_, restore) in who.items():
            shutil.rmtree("/bench/restored", ignore_errors=True)
            Path("/bench/restored").mkdir()
            os.sync()
            table.add(f"restore {name}", contestant, measured(there.store, restore))
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["a", "b", "find"])
    options = parser.parse_args()
    with scene.built() as there:
        lines = []
        if options.only in (None, "find"):
            lines += finding.lines_of(there, options.scale)
            finding.clear(there)
        if options.only in (None, "a"):
            data.make_small(A, options.scale)
            lines += steps_of(there, A, "A", options.rounds).lines()
        if options.only in (None, "b"):
            data.make_large(B, options.scale)
            lines += steps_of(there, B, "B", options.rounds).lines()
        lines += scene.ping_lines(there)
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"benchmark: {error}\n{error.stderr}")
