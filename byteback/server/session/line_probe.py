"""Lets a client measure the line between it and this server."""

from __future__ import annotations

from typing import BinaryIO

from byteback.errors import RefusedError
from byteback.wire.probe import ACKNOWLEDGEMENT, BLOCK, MAX_BLOCKS


def acknowledge_blocks(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer each block with a byte until the client ends it.

    It takes the memory of one block, and of time what the session has.
    Raises RefusedError for more blocks than any probe has.
    """
    for _ in range(MAX_BLOCKS):
        if len(source.read(BLOCK)) < BLOCK:
            return
        sink.write(ACKNOWLEDGEMENT)
        sink.flush()
    if source.read(1):
        raise RefusedError(f"a probe has at most {MAX_BLOCKS} blocks")
