"""What a backup is made of, beside another one's: sources, as absolute paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from byteback.errors import quote

SHOWN = 3
MORE = ""  # in the place of further sources that are not known


def is_bounded(sources: Sequence[str]) -> bool:
    """True if a backup of ``sources`` is one of a part of the machine."""
    return "/" not in sources


def describe(sources: Sequence[str]) -> str:
    """Sources for a sentence."""
    known = [source for source in sources if source != MORE]
    shown = [quote(source) for source in known[:SHOWN]]
    if len(known) > SHOWN or MORE in sources:
        shown.append("more")
    return _joined(shown)


def lost(before: Sequence[str], now: Sequence[str]) -> str | None:
    """What a backup of ``before`` had, and one of ``now`` has not; None for nothing."""
    if MORE in now or MORE in before:
        return None  # some of them are not known
    parts = []
    for source in before:
        if any(_is_in(source, other) for other in now):
            continue
        inside = [other for other in now if _is_in(other, source)]
        left = f", all but {describe(inside)}" if inside else ""
        parts.append(f"{quote(source)}{left}")
    if len(parts) > SHOWN:
        parts[SHOWN:] = ["more"]
    return "; ".join(parts) or None


def narrower(known: Mapping[str, Sequence[str]]) -> list[str]:
    """Names of the trees that lack something that another tree has, in order.

    ``known`` are the sources of a client's trees by their names.
    """
    different = {tuple(sources) for sources in known.values()}
    lacking = {one for one in different if any(lost(other, one) for other in different)}
    return sorted(name for name, sources in known.items() if tuple(sources) in lacking)


def _is_in(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")


def _joined(words: Sequence[str]) -> str:
    *first, last = words or [""]
    return f"{', '.join(first)} and {last}" if first else last
