"""Files of rsync's rules: whether they are any, and what is in them.

rsync's rule "!" (or "clear") empties all rules before it, ours among them: /proc would
be backed up, and files outside of the sources. Such a rule is refused.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from byteback.client.settings import MAX_FILE
from byteback.errors import UsageError, quote
from byteback.model.rsync_flags import Flag

MAX_DEPTH = 10  # of files that merge others
# rsync(1), MERGE-FILE FILTER RULES: the name may have modifiers before it. Files that
# directories of the transfer hold ("dir-merge") can empty their own rules alone.
_MERGE = re.compile(rb"(?:merge(?=[ _,])|\.),?([^ _]*)[ _](.+)", re.DOTALL)


class _Dialect(NamedTuple):
    """The way in which rsync reads the rules of a file."""

    clears: tuple[bytes, ...]  # the rules that empty all
    merges: bool = False  # whether a rule can name another file
    by_words: bool = False  # rather than by lines


_FILTERS = _Dialect((b"!", b"!,", b"clear", b"clear,"), merges=True)
_PATTERNS = _Dialect((b"!",))
_PLAIN_PATTERNS = _Dialect(())


class RuleFiles:
    """The files that rules were read from: their paths, and digests of their contents.

    Its methods raise UsageError for a file that is no text, and for rules that empty
    the others.
    """

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}

    def add_filter_file(self, path: Path) -> None:
        """Check a file of filter rules, as of --filter=merge, and those it merges."""
        self._add(path, _FILTERS, 0)

    def add_pattern_file(self, path: Path) -> None:
        """Check a file of patterns, as of --exclude-from."""
        self._add(path, _PATTERNS, 0)

    def add_patterns(self, patterns: Sequence[str]) -> None:
        """Check patterns, as of --exclude."""
        for pattern in patterns:
            self._check(os.fsencode(pattern), _PATTERNS, quote(pattern), 0)

    def add_flags(self, flags: Sequence[Flag]) -> None:
        """Check those options that are filters."""
        for flag in flags:
            value = flag.value or ""
            if flag.name == "filter":
                self._check(os.fsencode(value), _FILTERS, "rsync_flags", 0)
            elif flag.name in ("exclude", "include"):
                self._check(os.fsencode(value), _PATTERNS, "rsync_flags", 0)
            elif flag.name in ("exclude-from", "include-from") and value != "-":
                self.add_pattern_file(Path(value))

    def _add(self, path: Path, dialect: _Dialect, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise UsageError(f"{quote(str(path))}: too many files that merge others")
        data = _read(path)
        self.digests[str(path)] = hashlib.sha256(data).hexdigest()
        for number, rule in _rules(data, dialect):
            self._check(rule, dialect, f"{quote(str(path))}, line {number}", depth)

    def _check(self, rule: bytes, dialect: _Dialect, where: str, depth: int) -> None:
        if rule in dialect.clears:
            raise UsageError(
                f"{where}: {quote(rule)} empties all rules, byteback's own among them",
                hint="remove it, and the rules before it, which it takes back",
            )
        match = _MERGE.fullmatch(rule) if dialect.merges else None
        if match is not None and match[2] != b"-":
            path = os.path.abspath(os.fsdecode(match[2]))  # noqa: PTH100 # no links
            self._add(Path(path), _merged(match[1]), depth + 1)


def _merged(modifiers: bytes) -> _Dialect:
    """The way in which a file that another one merges is read."""
    if b"C" in modifiers:
        return _PATTERNS._replace(by_words=True)
    if b"-" in modifiers or b"+" in modifiers:
        return _PLAIN_PATTERNS
    return _FILTERS._replace(by_words=b"w" in modifiers)


def _rules(data: bytes, dialect: _Dialect) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(re.split(rb"\r\n|[\r\n]", data), 1):
        if dialect.by_words:
            yield from ((number, word) for word in line.split())
        elif line and not line.startswith((b"#", b";")):
            yield number, line


def _read(path: Path) -> bytes:
    """The contents of a file of rules, in any encoding, as file names are."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE + 1)
    except OSError as error:
        raise UsageError(f"cannot read {quote(str(path))}: {error.strerror}") from None
    if len(data) > MAX_FILE or b"\0" in data:
        raise UsageError(
            f"{quote(str(path))} is no text file", hint="restore or remove it"
        )
    return data
