"""Files with more names than the server's file system allows (D37).

btrfs allows a file 65,535 names, XFS and tmpfs more. The names beyond are sent once
more, without those that the server has linked: so they are other files there, each
again of many names, and nothing is missing.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from byteback.model.rsync_names import plain_name
from byteback.system.rsync.command import PARTIAL, SUCCESS, Outcome, Unlinked

logger = logging.getLogger(__name__)

# rsync's incremental recursion ends with an internal error, status 13, at the second
# name that cannot be linked (finish_hard_link in its hlink.c).
ALL_AT_ONCE = "--no-inc-recursive"
# While this file is there, the last backup met such files, and the next one begins so.
STATE = Path("/var/lib/byteback/many-links")
NAMES_AT_ONCE = 60_000  # fewer than a file may have
# No file of fewer names is looked for: what the server says it could not link would
# else be a way to ask for files that the backup leaves out.
FEWEST = 30_000

# The name under which rsync makes a link that is to replace a file.
_TEMPORARY = re.compile(r"\.(.+)\.[0-9A-Za-z]+", re.DOTALL)


def options(state: Path = STATE) -> list[str]:
    """Words for rsync that the last backup has shown to be necessary."""
    return [ALL_AT_ONCE] if state.exists() else []


def remember(outcome: Outcome, state: Path = STATE) -> None:
    """Remember whether the next backup needs them; a failure only costs it time."""
    with contextlib.suppress(OSError):
        if outcome.unlinked:
            state.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            state.touch(mode=0o644)
        else:
            state.unlink(missing_ok=True)


def complete(
    outcome: Outcome,
    sources: Sequence[str],
    foreign: Collection[str],
    send: Callable[[Sequence[str]], Outcome],
) -> Outcome:
    """Send the names that the server could not link, and tell what came of it.

    ``send`` sends files by their names below /. Where all is there then, and nothing
    else was missing, the outcome is a success. ``foreign`` is own_files.walk's: what
    is mounted there is not touched.
    """
    if not outcome.unlinked:
        return outcome
    found, problems = [], list(outcome.problems)
    finder = _Finder(sources, foreign)
    for one in outcome.unlinked:
        name = finder.find(one)
        if name is None:
            problems.append(one.stderr_tail)
        else:
            found.append(name)
    # Sorted, so that the same names are one file in each backup.
    for chunk in _chunks(sorted(set(found))):
        sent = send(chunk)
        problems += [*sent.all_problems, *(one.stderr_tail for one in sent.unlinked)]
    if found:
        logger.warning(
            "files with more names than the server's file system allows: %d of their "
            "names are files of their own in the backup",
            len(found),
        )
    completed = replace(outcome, unlinked=(), problems=tuple(problems))
    is_whole = outcome.status == PARTIAL and not completed.has_problems
    return replace(completed, status=SUCCESS) if is_whole else completed


def _chunks(names: Collection[str]) -> Iterator[list[str]]:
    rest = iter(names)
    while chunk := list(itertools.islice(rest, NAMES_AT_ONCE)):
        yield chunk


class _Finder:
    """Finds the client's own names for what the server could not link."""

    def __init__(self, sources: Sequence[str], foreign: Collection[str]) -> None:
        self._sources = [source.rstrip("/") for source in sources]
        self._foreign = [point.rstrip("/") for point in foreign]
        self._skipped = 0  # directories of the server's own, the last time

    def find(self, one: Unlinked) -> str | None:
        """The name below /; None for what is gone, or is no such file.

        The server tells its own path, which ends in the client's: it is a name of the
        same file as the one to link to.
        """
        target = self._status("/" + plain_name(one.target).lstrip("/"))
        if target is None or target.st_nlink < FEWEST:
            return None
        parts = plain_name(one.path).strip("/").split("/")
        lengths = dict.fromkeys([self._skipped, *range(len(parts))])
        for skipped in lengths:
            *above, last = parts[skipped:] or [""]
            for name in (last, *_TEMPORARY.findall(last)):
                path = "/".join([*above, name])
                status = self._status(f"/{path}")
                if status is not None and os.path.samestat(status, target):
                    self._skipped = skipped
                    return path
        return None

    def _status(self, path: str) -> os.stat_result | None:
        if not any(self._is_sent(path, source) for source in self._sources):
            return None
        with contextlib.suppress(OSError, ValueError):
            return os.lstat(path)
        return None

    def _is_sent(self, path: str, source: str) -> bool:
        """True if a path is below a source, and not on a file system left out there."""
        return path.startswith(f"{source}/") and not any(
            point.startswith(source) and f"{path}/".startswith(f"{point}/")
            for point in self._foreign
        )
