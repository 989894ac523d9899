"""Backups of many small files, most of them unchanged: what the record is there for.

Beside the steps of the other trees there is a cold one, before which the kernel forgets
all that it has read, and the pruning that follows a backup on the server.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks import scene
from tests.benchmarks.contestants import Byteback, Contestant, FakeSuper, Rsync
from tests.benchmarks.cost import Table

IN_EACH = 40
SIZE = 100  # bytes
RACY_S = 2.5  # after which the client's record trusts what was written
CHANGED = (10_000, 50_000, 100_000)
KEEPER = scene.LIBRARY / "byteback/client/record/keeper.py"
LIMIT = "MAX_CHANGES = "


class Full(Byteback):
    """byteback, comparing everything."""

    name = "full"

    def backup(self) -> None:
        """As on every seventh day."""
        command = self.there.bin / "byteback-backup"
        self.there.run([command, "--full", "--source", self.tree])


def tables(
    there: scene.Scene,
    kinds: Sequence[type[Contestant]],
    options: argparse.Namespace,
) -> list[str]:
    """One table for each size, and where a full comparison overtakes."""
    lines = []
    for count in options.names:
        tree = there.bench / "names"
        scene.make_subvolume(tree)
        _make(tree, count)
        steps = _Steps(there, tree, f"{count // 1000}k", kinds)
        lines += steps.take(options.rounds).lines()
        if options.threshold:
            lines += _overtaking(there, tree, count, options.rounds).lines()
        for kind in (Rsync, FakeSuper, Byteback):
            kind(there, tree).forget()
        scene.remove_tree(tree)
        scene.settle(there)
    return lines


@dataclass
class _Steps:
    """Takes all steps with one tree."""

    there: scene.Scene
    tree: Path
    label: str
    kinds: Sequence[type[Contestant]]
    table: Table = field(default_factory=Table)

    def take(self, rounds: int) -> Table:
        """All steps, the contestants taking turns."""
        plain: list[Contestant] = [
            kind(self.there, self.tree)
            for kind in (Rsync, FakeSuper)
            if kind in self.kinds
        ]
        byteback, full = Byteback(self.there, self.tree), Full(self.there, self.tree)
        for who in (*plain, byteback):
            who.forget()
            scene.settle(self.there)
            self._measure("first", who)
        time.sleep(RACY_S)
        byteback.prepare()
        byteback.backup()
        partly = [*plain, byteback]
        for number in range(rounds):
            self._turns("unchanged", partly, number)
            _change(self.tree, _count(self.tree) // 100, number)
            time.sleep(RACY_S)
            self._turns("1 % changed", partly, number)
        for number in range(rounds):
            self._turns("compared", [*plain, full], number)
        for number in range(rounds):
            self._turns("cold", partly, number)
        return self.table

    def _turns(self, step: str, who: Sequence[Contestant], number: int) -> None:
        for one in _rotated(who, number):
            self._measure(step, one)

    def _measure(self, step: str, who: Contestant) -> None:
        """One backup, and for byteback the pruning that comes after it."""
        is_own = isinstance(who, Byteback)
        if is_own:
            who.prepare()
            _prune(self.there)
        if step == "cold":
            forget_what_was_read()
        sample = self.there.sides.measured(who.backup)
        self.table.add(f"{step} {self.label}", who.name, sample)
        if is_own:
            sample = self.there.sides.measured(lambda: _prune(self.there))
            self.table.add(f"{step} {self.label}", "pruning", sample)


def _overtaking(there: scene.Scene, tree: Path, count: int, rounds: int) -> Table:
    """So many changed names, sent alone, and as part of a full comparison."""
    table = Table()
    text = KEEPER.read_text()
    KEEPER.write_text(text.replace(LIMIT, f"{LIMIT}10**9 + "))
    assert KEEPER.read_text() != text
    try:
        for changed in (one for one in CHANGED if one < count):
            for number in range(rounds):
                for who in (Byteback(there, tree), Full(there, tree)):
                    _change(tree, changed, number)
                    time.sleep(RACY_S)
                    who.prepare()
                    sample = there.sides.measured(who.backup)
                    table.add(f"{changed // 1000}k changed", who.name, sample)
    finally:
        KEEPER.write_text(text)
    return table


def _prune(there: scene.Scene) -> None:
    command = there.bin / "byteback-prune"
    there.run([command, "--prune"], side=there.sides.server)


def forget_what_was_read() -> None:
    """Drop what the kernel keeps of files and directories, on both sides."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def _make(tree: Path, count: int) -> None:
    for number in range(count):
        directory = tree / f"{number // 20_000:03}" / f"{number // IN_EACH % 500:03}"
        if number % IN_EACH == 0:
            directory.mkdir(parents=True, exist_ok=True)
        (directory / f"file-{number:07}").write_bytes(b"%07d" % number * (SIZE // 7))
    shutil.copystat("/usr", tree)


def _count(tree: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(tree))


def _change(tree: Path, count: int, seed: int) -> None:
    """Rewrite so many files at equal size."""
    chance = random.Random(f"{count} {seed}")
    names = [
        os.path.join(place, name)  # noqa: PTH118 # there are many
        for place, _, files in os.walk(tree)
        for name in files
    ]
    for name in chance.sample(sorted(names), count):
        Path(name).write_bytes(chance.randbytes(SIZE))


def _rotated(all_: Sequence[Contestant], number: int) -> list[Contestant]:
    start = number % len(all_)
    return [*all_[start:], *all_[:start]]
