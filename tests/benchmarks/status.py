"""Measures how long byteback-status takes for many clients, on a made-up store.

Needs neither root nor btrfs. Each row is the median of several runs of a process of its
own, in seconds of processor time, Python's start included.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.made_up_store import make_store

CHECKOUT = Path(__file__).resolve().parents[2]
HUGE_MB = 1_000_000  # a backup that stands out in every store
BARE = "import os, click; times = os.times(); print(times.user + times.system)"
ASK = """
import os, sys, time
from datetime import UTC
from pathlib import Path
from byteback.cli import status
from byteback.model import status_text
from byteback.server.status import collect, publish
from byteback.server.store import clock, opening
from byteback.server.store.layout import Store
store = Store(Path(sys.argv[1]))
clock.PATH = store.root.with_name("clock")
if sys.argv[2] == "clock":
    found = [clock.look(store, time.time())]
elif sys.argv[2] == "page":
    found = publish.render_page(store, time.time())
else:
    found = status_text.format_report(collect.collect(store, time.time()), UTC)
times = os.times()
print(times.user + times.system, len(found))
"""


def measure(rounds: int, *words: str | Path) -> float:
    """The median of the processor's seconds, in processes of their own."""
    seconds = []
    for _ in range(rounds):
        done = subprocess.run(
            [sys.executable, "-c", *words],
            check=True,
            capture_output=True,
            text=True,
            cwd=CHECKOUT,
        )
        seconds.append(float(done.stdout.split()[0]))
    return statistics.median(seconds)


def main() -> None:
    """Print one row for each store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--snapshots", type=int, default=60, help="of each client")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, nargs="*", default=[10, 100, 1000])
    wanted = parser.parse_args()
    print(f"{'clients':>8} {'snapshots':>10} {'table':>7} {'page':>7}")
    print(f"{'Python and click alone':19} {measure(wanted.rounds, BARE):7.2f}")
    kinds = [(number, 1, "") for number in wanted.clients]
    kinds.append((wanted.clients[-1], HUGE_MB, "  all of them suddenly larger"))
    for clients, megabytes, words in kinds:
        with tempfile.TemporaryDirectory() as place:
            root = Path(place, "store")
            make_store(root, clients, wanted.snapshots, megabytes=megabytes)
            # Pruning has recorded the clock on every server where it has run.
            measure(1, ASK, root, "clock")
            table = measure(wanted.rounds, ASK, root, "table")
            page = measure(max(1, wanted.rounds // 3), ASK, root, "page")
        number = clients * wanted.snapshots
        print(f"{clients:8} {number:10} {table:7.2f} {page:7.2f}{words}", flush=True)


if __name__ == "__main__":
    main()
