"""Measures how long byteback-status takes for many clients, on a made-up store.

Needs neither root nor btrfs. Each row is the median of several runs of the program, in
seconds of processor time, Python's start included.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.made_up_store import make_store

CHECKOUT = Path(__file__).resolve().parents[2]
HUGE_MB = 1_000_000  # a backup that stands out in every store
BARE = "import click"
ASK = """
import contextlib, sys, time
from pathlib import Path
from byteback.cli import status
from byteback.server.store import clock, opening
from byteback.server.store.layout import Store
store = Store(Path(sys.argv.pop(1)))
clock.PATH = store.root.with_name("clock")
opening.opened_store = lambda: contextlib.nullcontext(store)
if sys.argv[1:] == ["clock"]:
    clock.look(store, time.time())
elif sys.argv[1:] == ["page"]:
    from byteback.server.status import publish
    publish.render_page(store, time.time())
else:
    status.main()
"""


def measure(rounds: int, bytecode: Path, *words: str | Path) -> float:
    """The median of the processor's seconds, in processes of their own.

    An installed program is compiled already, and so is this one after its first run.
    """
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(bytecode)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    seconds = []
    for _ in range(rounds + 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-c", *words],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=CHECKOUT,
            env=environment,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(
            after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        )
    return statistics.median(seconds[1:])


def main() -> None:
    """Print one row for each store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--snapshots", type=int, default=60, help="of each client")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, nargs="*", default=[10, 100, 1000])
    wanted = parser.parse_args()
    print(f"{'clients':>8} {'snapshots':>10} {'table':>7} {'page':>7}")
    kinds = [(number, 1, "") for number in wanted.clients]
    kinds.append((wanted.clients[-1], HUGE_MB, "  all of them suddenly larger"))
    with tempfile.TemporaryDirectory() as place:
        bytecode, root = Path(place, "bytecode"), Path(place, "store")
        bare = measure(wanted.rounds, bytecode, BARE)
        print(f"{'Python and click alone':19} {bare:7.2f}")
        for clients, megabytes, words in kinds:
            make_store(root, clients, wanted.snapshots, megabytes=megabytes)
            # Pruning has recorded the clock on every server where it has run.
            measure(1, bytecode, ASK, root, "clock")
            table = measure(wanted.rounds, bytecode, ASK, root)
            page = measure(max(1, wanted.rounds // 3), bytecode, ASK, root, "page")
            number = clients * wanted.snapshots
            print(
                f"{clients:8} {number:10} {table:7.2f} {page:7.2f}{words}", flush=True
            )
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
