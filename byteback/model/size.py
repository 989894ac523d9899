"""Sizes as people write them: ``20G``, ``500M``, ``1T``, in powers of 1024; counts."""

from __future__ import annotations

import re

from byteback.errors import UsageError, quote

UNITS = "BKMGTPE"
PATTERN = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGTPE]?)(?:I?B)?", re.ASCII)


def parse_size(text: str) -> int:
    """Bytes for ``20G``, ``1.5T``, ``500 MiB`` or a plain number.

    Raises UsageError for anything else.
    """
    found = PATTERN.fullmatch(text.strip().upper())
    if found is None:
        raise UsageError(
            f"{quote(text)} is no size", hint="write it like 500M, 20G or 1T"
        )
    number, unit = found.groups()
    return int(float(number) * 1024 ** UNITS.index(unit or "B"))


def format_size(size: int) -> str:
    """``20 GiB``, ``1.5 TiB``, ``300 B``: at most one digit after the point."""
    value = float(size)
    for unit in UNITS:
        if value < 1024 or unit == UNITS[-1]:
            break
        value /= 1024
    suffix = "B" if unit == "B" else f"{unit}iB"
    return f"{value:.1f}".removesuffix(".0") + f" {suffix}"


def format_count(number: int, what: str) -> str:
    """``1 file``, ``2 files``, ``0 files`` for "file"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
