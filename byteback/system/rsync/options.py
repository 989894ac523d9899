"""Which options the rsync of this machine has, asked once for each binary."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from byteback.system import process

ASK_TIMEOUT_S = 10.0
_OPTION = re.compile(r"--[a-z0-9][a-z0-9-]*")


def options(program: Path, cache: Path | None = None) -> frozenset[str]:
    """The long options that ``program --help`` names, each with its two dashes.

    ``cache`` is a file in a directory that no other user can write to: its first line
    says which binary the second line's options are those of. Whatever is wrong with
    it, rsync is asked again. Raises ToolError if rsync cannot be run.
    """
    identity = _identity(program)
    if cache is not None:
        with contextlib.suppress(OSError, ValueError):
            known, found = cache.read_text(encoding="ascii").splitlines()
            if known == identity:
                return frozenset(found.split())
    shown = process.run(
        [program, "--help"], tolerate=range(256), timeout_s=ASK_TIMEOUT_S
    )
    asked = frozenset(_OPTION.findall(shown.text))
    if cache is not None:
        _remember(cache, f"{identity}\n{' '.join(sorted(asked))}\n")
    return asked


def _identity(program: Path) -> str:
    """An identity that changes when another binary is put in this one's place."""
    found = program.stat()
    numbers = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    return " ".join(str(number) for number in (*numbers, found.st_ctime_ns))


def _remember(cache: Path, content: str) -> None:
    """Write the cache whole; where that fails rsync is asked again the next time."""
    unfinished = cache.with_name(f"{cache.name}.{os.getpid()}")
    try:
        unfinished.write_text(content, encoding="ascii")
        unfinished.replace(cache)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()
