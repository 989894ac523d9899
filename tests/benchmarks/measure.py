"""Runs each contestant over the same data and prints one table of ratios."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks import contestants, data, finding, names, scene
from tests.benchmarks.contestants import Contestant
from tests.benchmarks.cost import HEAD, Sample, Table

TARGET = scene.BENCH / "restored"
STORE_SHARE = 0.9  # of the store that may be filled
TREES = {
    "A": (data.make_small, data.change_small, data.SMALL_FILES * data.SMALL_MEAN),
    "B": (data.make_large, data.change_large, sum(data.LARGE_SIZES)),
}


def steps_of(
    there: scene.Scene,
    name: str,
    kinds: Sequence[type[Contestant]],
    options: argparse.Namespace,
) -> Table:
    """First backup, unchanged, changed and restore, the contestants taking turns."""
    make, change, _ = TREES[name]
    tree = there.bench / name.lower()
    scene.make_subvolume(tree)
    make(tree, options.scale)
    table = Table()
    all_ = [kind(there, tree) for kind in kinds]

    def turns(step: str, number: int) -> None:
        for who in _rotated([one for one in all_ if step in one.steps], number):
            who.prepare()
            sample = there.sides.measured(who.backup)
            table.add(f"{step} {name}", who.name, sample)

    for number in range(options.rounds):
        for who in all_:
            who.forget()
        scene.settle(there)
        turns("first", number)
    for number in range(options.rounds):
        turns("unchanged", number)
        change(tree, seed=100 + number)
        turns("1 % changed", number)
    for number in range(options.rounds):
        for who in _rotated(all_, number):
            sample = _restored(there, who)
            table.add(f"restore {name}", who.name, sample)
    for who in all_:
        who.forget()
    scene.remove_tree(tree, TARGET)
    scene.settle(there)
    return table


def _restored(there: scene.Scene, who: Contestant) -> Sample:
    scene.remove_tree(TARGET)
    TARGET.mkdir()
    scene.settle(there)
    sample = there.sides.measured(lambda: who.restore(TARGET))
    if _count(TARGET) < _count(who.tree):
        raise SystemExit(f"benchmark: {who.name} did not restore all files")
    return sample


def _count(tree: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(tree))


def _rotated(all_: Sequence[Contestant], number: int) -> list[Contestant]:
    """In another order each round, so that nobody always follows the same."""
    start = number % len(all_)
    return [*all_[start:], *all_[:start]]


def check_room(
    name: str, kinds: Sequence[type[Contestant]], options: argparse.Namespace
) -> None:
    """Refuse what the store cannot hold, before hours have passed."""
    copies = sum(1 + options.rounds * kind.keeps_whole_files for kind in kinds)
    fits = scene.STORE_SIZE * STORE_SHARE / (TREES[name][2] * copies)
    if options.scale > fits:
        raise SystemExit(
            f"benchmark: {copies} copies of {name} do not fit: choose --contestants,"
            f" fewer --rounds, or --scale {int(fits * 100) / 100} at most"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="tests/benchmarks/run", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, metavar="PART")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["a", "b", "find", "names"])
    parser.add_argument(
        "--contestants",
        metavar="NAME,...",
        help=", ".join(kind.name for kind in contestants.ALL),
    )
    parser.add_argument(
        "--names",
        type=lambda text: [int(word) for word in text.split(",")],
        default=[60_000, 600_000],
        metavar="COUNT,...",
        help="files of the trees for --only names (default: 60000,600000)",
    )
    parser.add_argument(
        "--threshold",
        action="store_true",
        help="with --only names: find where a full comparison is no slower",
    )
    options = parser.parse_args()
    chosen = options.contestants.split(",") if options.contestants else None
    unknown = set(chosen or ()) - {kind.name for kind in contestants.ALL}
    if unknown:
        parser.error(f"no such contestant: {', '.join(sorted(unknown))}")
    kinds, lines = contestants.chosen(chosen)
    trees = [name for name in TREES if options.only in (None, name.lower())]
    for name in trees:
        check_room(name, kinds, options)
    with scene.built() as there:
        lines += measure(there, kinds, trees, options)
    sys.stdout.write("\n".join(lines) + "\n")


def measure(
    there: scene.Scene,
    kinds: Sequence[type[Contestant]],
    trees: Sequence[str],
    options: argparse.Namespace,
) -> list[str]:
    """All that was asked for."""
    lines, found = [], []
    if options.only in (None, "find"):
        found = finding.lines_of(there, options.scale)
        finding.clear(there)
    if not there.sides.are_apart:
        lines.append("no control groups: cpu is the whole machine's, memory is missing")
    if trees:
        lines += [HEAD, "-" * len(HEAD)]
    if options.only == "names":
        lines += [HEAD, "-" * len(HEAD), *names.tables(there, kinds, options)]
    for name in trees:
        lines += steps_of(there, name, kinds, options).lines()
    return [*lines, *found, *scene.ping_lines(there)]


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"benchmark: {error}\n{error.stderr}")
