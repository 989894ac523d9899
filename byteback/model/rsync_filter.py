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


def source_rules(sources: Sequence[tuple[str, bool]]) -> list[str]:
    """Filter rules that leave nothing of / but ``sources``; none for / itself.

    Each source is an absolute path and whether it is a directory. Sources are rules
    rather than arguments because rsync deletes only inside what it was given: with
    / given always, what is no source any more goes from the server too.
    """
    if any(path == "/" for path, _ in sources):
        return []
    rules: dict[str, None] = {}  # ordered, and each rule once
    for path, is_directory in sources:
        for parent in reversed(PurePosixPath(path).parents):
            if str(parent) != "/":
                rules[f"+ {file_rule(str(parent))}/"] = None
        rule = f"{_escape(path)}/***" if is_directory else file_rule(path)
        rules[f"+ {rule}"] = None
    return [*rules, "- *"]


def _escape(path: str) -> str:
    return "".join(f"\\{c}" if c in _WILD or c == "\\" else c for c in path)
