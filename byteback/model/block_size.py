"""Chooses the block size of rsync's deltas.

rsync chooses about the square root of a file's size, 32 KiB for one of 1 GiB, so that
each changed 4 KiB of it costs eight times that on the wire and in every snapshot.
Small blocks cost memory on both sides instead, some 40 bytes for each block of the
file that is being compared.
"""

from __future__ import annotations

SMALLEST = 4096  # bytes: a page, and btrfs's own unit
LARGEST = 128 * 1024  # rsync's MAX_BLOCK_SIZE since protocol 30
MAX_BLOCKS = 256 * 1024  # of one file: about 10 MiB of memory


def choose_block_size(largest_file: int) -> int | None:
    """Bytes a block for a run whose largest changing file has ``largest_file`` bytes.

    None leaves the choice to rsync: the file is so large that even the largest block
    would take more memory than it is worth.
    """
    size = SMALLEST
    while largest_file > size * MAX_BLOCKS:
        size *= 2
    return size if size <= LARGEST else None
