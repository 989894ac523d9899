"""The record takes the same memory, however many names there are (D40)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from byteback.client.record import blocks
from byteback.client.record.compare import Comparison
from byteback.client.record.walk import Domain, Walk
from byteback.system import kernel_files

IN_EACH = 50
KIB, MIB = 1 << 10, 1 << 20

JUDGES = """
import resource, sys
from pathlib import Path
from byteback.client.record import skeleton
asked = [(f"{number:05}/file", False) for number in range(int(sys.argv[1]))]
kept = skeleton.judge(["--exclude=*.o"], asked, Path(sys.argv[2]))
assert len(kept) == 2 * len(asked)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def make_tree(source: Path, names: int) -> None:
    """Empty files in directories of fifty."""
    for number in range(names // IN_EACH):
        directory = source / f"{number:05}"
        if not directory.exists():
            directory.mkdir()
            for file in range(IN_EACH):
                (directory / f"a-file-whose-name-takes-room-{file}").touch()


def peak_of_a_walk(source: Path, work: Path) -> int:
    """Bytes of Python's memory while a tree is compared with its record."""
    domain = Domain(["/"], [])
    record = work / "record"
    with record.open("wb") as file:
        writer = blocks.Writer(file)
        Walk(domain, writer.add, None, str(source)).run()
        writer.finish({})
    tracemalloc.start()
    try:
        with record.open("rb") as old, (work / "new").open("wb") as file:
            comparison = Comparison(blocks.Reader(old), (), 10)
            Walk(domain, blocks.Writer(file).add, comparison, str(source)).run()
            comparison.close()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_walk_takes_the_same_memory_for_more_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_files, "has_stable_inodes", lambda _: True)
    monkeypatch.setattr(kernel_files, "sync_file_system", lambda _: None)
    source = tmp_path / "source"
    source.mkdir()
    make_tree(source, 4000)
    few = peak_of_a_walk(source, tmp_path)
    make_tree(source, 12_000)
    many = peak_of_a_walk(source, tmp_path)
    # Names of directories alone are kept, for as long as the one above is walked.
    assert many - few < 100 * KIB, (few, many)


def test_rsync_judges_many_directories_in_little_memory(tmp_path: Path) -> None:
    if shutil.which("rsync") is None:
        pytest.skip("there is no rsync")

    def memory(directories: int) -> int:
        words = [sys.executable, "-c", JUDGES, str(directories), str(tmp_path)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        return int(done.stdout) * KIB

    assert memory(600) - memory(100) < 16 * MIB  # 65 with incremental recursion
