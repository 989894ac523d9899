"""Files that a finished backup lacks, in the words of its last message."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from byteback.errors import IncompleteBackupError, escape
from byteback.system.rsync import command
from byteback.system.rsync.command import Outcome

LINES_SHOWN = 5
PATHS_SHOWN = 2  # of them, beside complaints
LONGEST_LINE = 400  # characters; a path may have ten times as many

HINT_UNREAD = "mend or exclude what is listed here; all the rest is safe"
HINT_ATTRIBUTES = "they are named user.rsync.*, as rsync's own: see byteback(7)"

_QUOTED_NAME = re.compile(r'"(/?[^"]*)"')


@dataclass(frozen=True)
class Shortfall:
    """Files that could not be read, sent or kept. True if there are any."""

    outcome: Outcome
    own_attributes: Sequence[str] = ()  # paths, see own_attributes.py

    def __bool__(self) -> bool:
        return self.outcome.status == command.PARTIAL or bool(self.own_attributes)

    def error(self) -> IncompleteBackupError:
        """The error for the user."""
        sentences, hint, lines = [], HINT_ATTRIBUTES, list[str]()
        own = [escape(path) for path in self.own_attributes]
        if self.outcome.status == command.PARTIAL:
            what = f"{_count(self.outcome)} could not be read"
            if self.outcome.kept_deleted:
                what += ", and so files that were deleted here were kept in it"
            sentences, hint = [what], HINT_UNREAD
            lines = [escape(_shorten(line)) for line in self.outcome.all_problems]
            lines = lines[: LINES_SHOWN - min(len(own), PATHS_SHOWN)]
        if own:
            files = "one file has" if len(own) == 1 else f"{len(own)} files have"
            sentences.append(f"{files} attributes that no backup keeps")
        return IncompleteBackupError(
            f"the backup is done, but {'; and '.join(sentences)}",
            hint=hint,
            details=[*lines, *own][:LINES_SHOWN],
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
    """The number of files, if each complaint names one."""
    names = unread_names(outcome)
    plain = [name.strip("/") for name in names]
    for line in outcome.all_problems[len(outcome.problems) :]:
        if not any(name in line for name in plain):
            return "some files"
    if len(names) == 1:
        return "one file"
    return f"{len(names)} files" if names else "some files"


def _shorten(line: str) -> str:
    """``line`` without its middle if it is long: a path's ends tell most."""
    if len(line) <= LONGEST_LINE:
        return line
    half = (LONGEST_LINE - len(" [...] ")) // 2
    return f"{line[:half]} [...] {line[-half:]}"
