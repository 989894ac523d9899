"""Deterministic trees to back up, and changes to make in them."""

from __future__ import annotations

import random
from pathlib import Path

SMALL_FILES = 60_000
SMALL_MEAN = 11_000  # bytes: 0.65 GB in all
LARGE_SIZES = (1 << 30, 1 << 30, 1 << 30)  # 3 GiB
BLOCK = 4096


def make_small(directory: Path, scale: float, seed: int = 1) -> None:
    """Small files as a machine has them: most of them tiny, a few large."""
    chance = random.Random(seed)
    pool = chance.randbytes(1 << 22)
    count = int(SMALL_FILES * scale)
    for number in range(count):
        branch = directory / f"{number % 40:02d}" / f"{number // 40 % 40:02d}"
        if number < 1600:
            branch.mkdir(parents=True, exist_ok=True)
        size = int(chance.expovariate(1 / SMALL_MEAN))
        start = chance.randrange(len(pool) // 2)
        (branch / f"file-{number:05d}").write_bytes(pool[start : start + size])


def change_small(directory: Path, seed: int) -> None:
    """Rewrite one file in a hundred."""
    chance = random.Random(seed)
    files = sorted(p for p in directory.rglob("file-*") if p.is_file())
    for path in chance.sample(files, max(1, len(files) // 100)):
        path.write_bytes(chance.randbytes(SMALL_MEAN))


def make_large(directory: Path, scale: float, seed: int = 2) -> None:
    """A few large files that nothing compresses."""
    chance = random.Random(seed)
    directory.mkdir(parents=True, exist_ok=True)
    for number, full in enumerate(LARGE_SIZES):
        size = int(full * scale) // BLOCK * BLOCK
        with (directory / f"large-{number}").open("wb") as file:
            for _ in range(0, size, 1 << 22):
                file.write(chance.randbytes(min(1 << 22, size - file.tell())))


def change_large(directory: Path, seed: int) -> None:
    """Overwrite one block in a hundred, in place, at random."""
    chance = random.Random(seed)
    for path in sorted(directory.iterdir()):
        blocks = path.stat().st_size // BLOCK
        with path.open("r+b") as file:
            for block in chance.sample(range(blocks), max(1, blocks // 100)):
                file.seek(block * BLOCK)
                file.write(chance.randbytes(BLOCK))
