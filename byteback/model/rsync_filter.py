"""rsync filter rules: which parts of a machine are sent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

_WILD = frozenset("*?[")


def contents_rule(directory: str) -> str:
    """The exclude pattern for what is in ``directory``, but not for itself.

    The directory stays in the backup, empty, so that a restored machine has its
    mount points and its /tmp.
    """
    return f"{_escape(directory.rstrip('/'))}/*"


def file_rule(path: str) -> str:
    """The exclude pattern for one path alone.

    rsync takes backslashes literally in a pattern that has no wildcard (rsync(1),
    PATTERN MATCHING RULES).
    """
    return _escape(path) if _WILD & set(path) else path


def bounds(sources: Sequence[str]) -> list[str]:
    """Rules that leave nothing of / but ``sources``, and decide nothing inside these.

    What stands behind them rules inside the sources, and can bring in nothing else.
    Sources are rules rather than arguments because rsync deletes only inside what it
    was given: with / given always, what is no source any more goes from the server too.
    """
    return [] if "/" in sources else leave_in("/", sources)


def leave_in(directory: str, kept: Sequence[str]) -> list[str]:
    """Rules that leave nothing in ``directory`` but those of ``kept`` below it.

    The directories on the way are sent, and nothing is decided inside ``kept``. The
    directory itself is kept, too: a restored machine needs its mount points and /tmp.
    """
    includes: dict[str, None] = {}  # ordered, and each rule once
    excludes = {f"- {contents_rule(directory)}": None}
    top = directory.rstrip("/") + "/"
    for path in outermost([path for path in kept if path.startswith(top)]):
        for parent in reversed(PurePosixPath(path).parents):
            if str(parent).startswith(top) and str(parent) != "/":
                includes[f"+ {file_rule(str(parent))}/"] = None
                excludes[f"- {contents_rule(str(parent))}"] = None
        includes[f"+ {file_rule(path)}"] = None
    return [*includes, *excludes]


def outermost(paths: Sequence[str]) -> list[str]:
    """Those of ``paths`` that are in no other one, each once."""
    found = dict.fromkeys(paths)
    if "/" in found:
        return ["/"]
    return [
        path
        for path in found
        if not any(str(parent) in found for parent in PurePosixPath(path).parents)
    ]


def _escape(path: str) -> str:
    return "".join(f"\\{c}" if c in _WILD or c == "\\" else c for c in path)
