"""The paths that a backup was asked for, as they are on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from byteback.errors import UsageError, quote
from byteback.system import time_limit

LIMIT_S = 60.0


def resolve(sources: Sequence[str], *, may_be_gone: bool = False) -> list[str]:
    """Absolute paths without links above them; two for a source that is a link itself.

    Raises UsageError for a source that does not exist, unless it ``may_be_gone``, and
    for one on a file system that does not answer in time.
    """
    found: dict[str, None] = {}
    answers = time_limit.ask([partial(_look, source) for source in sources], LIMIT_S)
    for source, answer in zip(sources, answers, strict=True):
        if isinstance(answer, list):
            found |= dict.fromkeys(map(str, answer))
        elif may_be_gone:
            found[os.path.abspath(source)] = None  # noqa: PTH100 # keeps links
        else:
            raise UsageError(
                f"cannot back up {quote(source)}: {_reason(answer)}",
                hint="give --source paths that exist on this machine",
            )
    return list(found)


def _look(source: str) -> list[str] | str:
    """The paths that a source means, or a sentence."""
    path = Path(source)
    try:
        real = path.resolve(strict=True)
    except RuntimeError:
        return "it is a loop of links"
    if path.is_symlink():
        return [str(path.parent.resolve() / path.name), str(real)]
    return [str(real)]


def _reason(answer: object) -> str:
    if isinstance(answer, time_limit.Failed):
        return answer.reason
    if isinstance(answer, time_limit.Silent):
        return "its file system does not answer"
    return str(answer)
