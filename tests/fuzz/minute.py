"""Fuzzes all readers for a minute, spread over the cores.

    python3 -m tests.fuzz.minute DIRECTORY-FOR-FINDINGS [SECONDS]

Each reader is tried once with the same dice every time and once with fresh ones. The
end of what libFuzzer said is shown of each that failed, with the dice it had.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.targets import SHARES, TARGETS

CHECKOUT = Path(__file__).resolve().parents[2]
SECONDS = 60
START_S = 1.5  # what each process takes before it begins
FIXED_SEED = 1
SHOWN_LINES = 40


def main() -> None:
    """End with status 1 if anything was found."""
    findings = Path(sys.argv[1])
    findings.mkdir(parents=True, exist_ok=True)
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else SECONDS
    fresh_seed = int.from_bytes(os.urandom(3), "big") + 2
    cores = len(os.sched_getaffinity(0))
    runs = [(name, seed) for name in TARGETS for seed in (FIXED_SEED, fresh_seed)]
    shares = sum(SHARES.get(name, 1) for name, _ in runs)
    each = max(0.0, seconds * cores - START_S * len(runs)) / shares
    runs.sort(key=lambda run: -SHARES.get(run[0], 1))
    with ThreadPoolExecutor(cores) as pool:
        ended = [
            pool.submit(fuzz, name, seed, each * SHARES.get(name, 1), findings)
            for name, seed in runs
        ]
    results = [one.result() for one in ended]
    print(f"{sum(count for count, _ in results)} inputs to {len(TARGETS)} readers")
    complaints = [stderr_tail for _, stderr_tail in results if stderr_tail]
    print("\n".join(complaints), end="")
    sys.exit(1 if complaints else 0)


def fuzz(name: str, seed: int, seconds: float, findings: Path) -> tuple[int, str]:
    """How many inputs were tried, and what went wrong, if anything did."""
    with tempfile.TemporaryDirectory() as corpus:
        argv = [
            *(sys.executable, "-m", "tests.fuzz.fuzz", name, f"-seed={seed}"),
            *(f"-max_total_time={max(1, round(seconds))}", "-print_final_stats=1"),
            *("-timeout=20", "-rss_limit_mb=1024", "-max_len=8192"),
            *(f"-artifact_prefix={findings}/{name}-", corpus),
        ]
        done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, check=False)
    said = done.stderr.decode("utf-8", "backslashreplace").splitlines()
    counts = [line.split()[-1] for line in said if "number_of_executed_units" in line]
    if done.returncode != 0 or not counts:
        lines = [f"{name}, seed {seed}: status {done.returncode}", *said[-SHOWN_LINES:]]
        return 0, "\n".join(lines) + "\n"
    return int(counts[0]), ""


if __name__ == "__main__":
    main()
