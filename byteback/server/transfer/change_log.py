"""Reads in rsync's log which files of several names a transfer changes (D34).

And, of a partial transfer, in which directories names come and go (D49).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from pathlib import Path

from byteback.model.rsync_names import plain_name
from byteback.server.store import tree

MAX_SHARED = 1 << 20  # files with several names that one transfer changes
MAX_PATHS = 1 << 24  # characters, of the names that they were changed under
MAX_BEGINNINGS = 100
MAX_TOUCHED = 1 << 19  # characters, of directories in which names come and go

# rsync cuts a long line, after 2047 bytes, and writes the next one right behind it.
_NEVER_CUT = 1000  # bytes
_LONGEST = 1 << 13  # bytes; nothing that rsync writes before the next line is longer
_CUT_ESCAPE = re.compile(rb"\\#?[0-7]{0,3}\Z")
_LOGGED = re.compile(rb"[0-9/]{10} [0-9:]{8} \[[0-9]+\] ")
# rsync(1), --itemize-changes: all but directories, and but what is new ("+").
_CHANGED = re.compile(rb"[<>.c][^d][^+ ]\S{8} (.+)", re.DOTALL)
# What is new, any change of a directory itself, and what is deleted.
_NEW = re.compile(rb"[<>ch.][fdLDS]\+{9} (.+)", re.DOTALL)
_DIRECTORY = re.compile(rb"[<>ch.]d.{9} (.+)", re.DOTALL)
_DELETED = re.compile(rb"\*deleting   (.+)", re.DOTALL)
# get_stat_xattr in rsync's xattrs.c; the name of the file follows.
_DAMAGED = b"Corrupt user.rsync.%stat xattr attached to "


class Changes:
    """The files of several names that a transfer changes, by their inode numbers."""

    def __init__(self, top: Path, separated: Collection[int] | None) -> None:
        self.numbers: set[int] = set()
        # Under which name each was changed last, as long as these are not too many.
        self.paths: dict[int, str] = {}
        # Of paths too long for rsync's log: it does not tell which files have changed.
        self.beginnings: set[str] = set()
        self.fifo: Path | None = None  # for rsync's log
        self.is_heard = False
        # Called when rsync meets an attribute that it cannot read.
        self.on_damage: Callable[[], None] = lambda: None
        self.is_damaged = False
        # Directories in which names came or went; None where that is not known.
        self.touched: set[str] | None = None
        # They had one name when the transfer began; None: it is no second one.
        self._separated = separated
        self._top = top
        self._parent: str | None = None
        self._directory: int | None = None
        self._length = 0  # of all paths
        self._touched_length = 0
        self._rest = b""  # the beginning of a line

    @property
    def is_second(self) -> bool:
        """True if an earlier transfer has had names separated for this one."""
        return self._separated is not None

    @property
    def may_go_on(self) -> bool:
        """True if the transfer may go on: nothing of it will have to be undone.

        A second transfer goes on to its end: else there might be no end to them.
        """
        return not self.numbers or self._separated is not None

    def is_spared(self, number: int) -> bool:
        """True if a file had one name when the transfer began."""
        return number in (self._separated or ())

    def take(self, line: bytes) -> None:
        """A line of rsync's log. What it names is looked at, beneath the top only."""
        line = self._rest + line
        self._rest = b""
        start = 0
        for logged in _LOGGED.finditer(line, _NEVER_CUT):
            if logged.start() - start >= _NEVER_CUT:
                self._take(line[start : logged.start()])
                start = logged.start()
        if line.endswith(b"\n"):
            self._take(line[start:])
        else:
            self._rest = line[start : start + _LONGEST]

    def close(self) -> None:
        """Take what has no end, and close what is open of the tree."""
        self._take(self._rest)
        self._rest = b""
        self._close()

    def _take(self, line: bytes) -> None:
        prefix = _LOGGED.match(line)
        if prefix is None:
            if line:  # the rest of a name that has a line feed in it
                self.touched = None
            return
        self.is_heard = True
        if self.touched is not None:
            self._touch(line[prefix.end() :])
        if line.startswith(_DAMAGED, prefix.end()) and not self.is_damaged:
            self.is_damaged = True
            self.on_damage()
        changed = _CHANGED.fullmatch(line[prefix.end() :].rstrip(b"\n"))
        if changed is None:
            return
        if line.endswith(b"\n"):
            self._look_at(resolve(plain_name(os.fsdecode(changed[1]))))
        elif len(line) >= _NEVER_CUT:
            name = os.fsdecode(_CUT_ESCAPE.sub(b"", changed[1]))
            self.beginnings.add(resolve(plain_name(name)))
            if len(self.beginnings) > MAX_BEGINNINGS:
                self.beginnings = {os.path.commonpath(list(self.beginnings))}

    def _touch(self, text: bytes) -> None:
        """Note a directory in which a name came or went; its own name if it changed."""
        if not text.endswith(b"\n"):  # it was cut
            self.touched = None
            return
        text = text.removesuffix(b"\n")
        paths = set()
        # Some versions of rsync escape names in their log, others do not.
        for change, of_parent in (_NEW, True), (_DELETED, True), (_DIRECTORY, False):
            found = change.fullmatch(text)
            if found is not None:
                name = os.fsdecode(found[1])
                for path in resolve(name), resolve(plain_name(name)):
                    paths.add(path.rpartition("/")[0] if of_parent else path)
        for path in paths:
            self._add_touched(path)

    def _add_touched(self, path: str) -> None:
        if self.touched is not None and path not in self.touched:
            self.touched.add(path)
            self._touched_length += len(path) + 1
            if self._touched_length > MAX_TOUCHED:
                self.touched = None

    def _look_at(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        is_a_name = name not in ("", "..") and "\0" not in path
        is_too_long = len(path) >= tree.PATH_MAX  # many directories to be opened
        if not is_a_name or is_too_long or len(self.numbers) > MAX_SHARED:
            return
        if parent != self._parent:
            self._close()
            self._parent, self._directory = parent, tree.open_beneath(self._top, parent)
        if self._directory is None:
            return
        status = tree.status(self._directory, name)
        if status and status.st_nlink > 1 and not self.is_spared(status.st_ino):
            self.numbers.add(status.st_ino)
            self._length += len(path) - len(self.paths.pop(status.st_ino, ""))
            if self._length <= MAX_PATHS:
                self.paths[status.st_ino] = path
            else:
                self._length -= len(path)

    def _close(self) -> None:
        if self._directory is not None:
            os.close(self._directory)
        self._parent = self._directory = None


def resolve(path: str) -> str:
    """A path as it is told beneath a tree's top, with each directory named once."""
    return "/".join(name for name in path.split("/") if name not in ("", "."))
