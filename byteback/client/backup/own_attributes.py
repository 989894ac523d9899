"""Finds files with attributes that no backup keeps: those named ``user.rsync.*``.

rsync --fake-super notes owners, modes and ACLs in such attributes. So rsync sends none
whose name begins with user.rsync.%, and a restore gives the others another name. A
client has some if it holds backups of that kind itself (rsync(1), --fake-super).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection
from pathlib import Path

from byteback.client.backup import own_files
from byteback.client.backup.rules import Selection
from byteback.errors import BytebackError
from byteback.model.rsync_names import plain_name
from byteback.system import mounts
from byteback.system.rsync import command

logger = logging.getLogger(__name__)

PREFIX = "user.rsync."
# While this file is there, all files that are not sent by a backup were looked at
# before. A backup that fails, and so tells of no file, takes it away.
STATE = Path("/var/lib/byteback/attributes-checked")
MAX_NAMES = 100_000


def has_own(path: str) -> bool:
    """True if a file has such attributes; False for one that is gone."""
    return any(name.startswith(PREFIX) for name in own_files.attributes(path))


class OwnAttributes:
    """Names of such files, each at most once: as rsync prints them, and by a look.

    Mount points in ``foreign`` are not looked at, as in own_files.walk.
    """

    def __init__(self, foreign: Collection[str] = (), state: Path = STATE) -> None:
        self._found: dict[str, None] = {}  # in their order
        self._foreign = foreign
        self._state = state
        self._is_first = not state.exists()

    @property
    def paths(self) -> tuple[str, ...]:
        """Those that were found, absolute."""
        return tuple(self._found)

    def begin(self) -> None:
        """To be called before anything is sent."""
        try:
            self._state.unlink(missing_ok=True)
        except OSError as error:
            logger.debug("%s: %s", self._state, error)

    def end(self) -> None:
        """To be called when the server has taken note that all is sent."""
        try:
            self._state.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._state.touch(mode=0o644)
        except OSError as error:  # then the next backup looks at all files
            logger.debug("%s: %s", self._state, error)

    def take(self, line: str) -> None:
        """Read one line of rsync's standard output, of the format push.SENT_FORMAT."""
        sent = own_files.parse_sent(line)
        if sent is not None:
            self._look_at(f"/{sent.name}".removesuffix("/"))

    def look_at_all(self, selection: Selection) -> None:
        """If no backup has done so yet, look at the files that this one did not send,
        too.
        """
        if not self._is_first:
            return
        before = dict(self._found)
        for directory, entries in own_files.walk(selection.sources, self._foreign):
            self._look_at(directory)
            for entry in entries:
                self._look_at(entry.path)
        if self._found != before:
            selected = _selected(selection, self._found)
            self._found = before | selected

    def _look_at(self, path: str) -> None:
        if path not in self._foreign and has_own(path) and len(self._found) < MAX_NAMES:
            self._found[path] = None


def _selected(selection: Selection, paths: dict[str, None]) -> dict[str, None]:
    """Those of ``paths`` that a backup holds: rsync itself judges."""
    seen: dict[str, None] = {}

    def take(line: str) -> None:
        path = "/" + plain_name(line).strip("/")
        if path in paths:
            seen[path] = None

    with tempfile.TemporaryDirectory(prefix="byteback-") as empty:
        argv = ["rsync", *selection.words, "--archive", "--relative", "--dry-run"]
        try:
            outcome = command.transfer(
                [*argv, "--out-format=%n", "--", "/", f"{empty}/"],
                on_line=take,
                confine=mounts.hiding(selection.hidden),
            )
        except BytebackError as error:
            logger.debug("%s", error.message)
            return paths
    is_done = outcome.is_success or outcome.status == command.PARTIAL
    return seen if is_done else paths
