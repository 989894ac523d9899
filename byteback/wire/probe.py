"""Measuring the line of a client, in the session of a ping.

Behind its Hello the server acknowledges each whole block that it has read from standard
input with one byte, until the input ends. The contents of a block do not matter.

A module of its own, though short: blocks are neither a request nor a reply, and of all
sessions only a ping that is to be measured loads it (D3).
"""

from __future__ import annotations

BLOCK = 32 * 1024  # bytes
FIRST_BLOCKS = 2  # tell a slow line, and cost 1 Mbit/s half a second
BLOCKS = 32  # tell how fast a fast one is
TRIES = 3  # of which the fastest counts
MAX_BLOCKS = FIRST_BLOCKS + TRIES * BLOCKS
ACKNOWLEDGEMENT = b"."
