"""What a backup that is done lacks, in the words of its last message."""

from __future__ import annotations

import re
from dataclasses import dataclass

from byteback.errors import IncompleteBackupError, escape
from byteback.system.rsync import command
from byteback.system.rsync.command import Outcome

LINES_SHOWN = 5
LONGEST_LINE = 400  # characters; a path may have ten times as many

_QUOTED_NAME = re.compile(r'"(/?[^"]*)"')


@dataclass(frozen=True)
class Shortfall:
    """What could not be read, sent or kept."""

    outcome: Outcome

    def error(self) -> IncompleteBackupError | None:
        """What the user is told; None if nothing is missing."""
        if self.outcome.status != command.PARTIAL:
            return None
        message = f"the backup is done, but {_count(self.outcome)} could not be read"
        if self.outcome.kept_deleted:
            message += ", and so files that were deleted here were kept in it"
        lines = self.outcome.all_problems[:LINES_SHOWN]
        return IncompleteBackupError(
            message,
            hint="mend or exclude what is listed here; all the rest is safe",
            details=[escape(_shorten(line)) for line in lines],
        )


def unread_names(outcome: Outcome) -> list[str]:
    """The names of the files that rsync complained about, each once, in its order."""
    found: dict[str, None] = {}
    for problem in outcome.problems:
        match = _QUOTED_NAME.search(problem)
        if match:
            found[match[1]] = None
    return list(found)


def _count(outcome: Outcome) -> str:
    """How many files, where each complaint names one."""
    has_others = len(outcome.all_problems) > len(outcome.problems)
    names = [] if has_others else unread_names(outcome)
    if len(names) == 1:
        return "one file"
    return f"{len(names)} files" if names else "some files"


def _shorten(line: str) -> str:
    """``line`` without its middle if it is long: a path's ends tell most."""
    if len(line) <= LONGEST_LINE:
        return line
    half = (LONGEST_LINE - len(" [...] ")) // 2
    return f"{line[:half]} [...] {line[-half:]}"
