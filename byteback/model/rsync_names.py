"""File names as rsync writes them in what it prints and logs.

Apart from system/rsync/command.py, which reads the rest of what rsync prints: the
server reads names in its log of changes, and must not load all that for it (D3).
"""

from __future__ import annotations

import re

_ESCAPED = re.compile(rb"\\#([0-3][0-7]{2})")


def plain_name(name: str) -> str:
    """A name as the file system has it: rsync escapes what is not printable."""
    raw = name.encode("utf-8", "surrogateescape")
    plain = _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), raw)
    return plain.decode("utf-8", "surrogateescape")
