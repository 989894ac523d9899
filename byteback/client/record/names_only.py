"""Sees to it that nothing but its name decides whether a file is sent.

rsync judges the names (skeleton.py). That works for rules that ask for nothing else:
none that lie in the directories themselves, none for one side alone. What is not known
to be harmless makes every backup a full one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from byteback.client.record.walk import UnfitError
from byteback.client.settings import MAX_FILE
from byteback.errors import quote
from byteback.model.rsync_filter import contents_rule, file_rule

# rsync(1), FILTER RULES: the plain short forms, and no modifiers.
_RULE = re.compile(rb"[+-] .+", re.DOTALL)
_COMMENT = re.compile(rb"\s*(?:[#;].*)?", re.DOTALL)
_PATTERN = ("--exclude=", "--include=")
_PATTERN_FILE = ("--exclude-from=", "--include-from=")
_MERGE = re.compile(r"--filter=(?:merge|\.) (/.+)", re.DOTALL)
_PLAIN = re.compile(r"--filter=[+-] .+", re.DOTALL)
# What changes neither which names are sent nor what of them.
_HARMLESS = re.compile(
    r"--(?:acls|archive|compress|compress-level=\d+|compress-choice=\w+|hard-links|"
    r"inplace|numeric-ids|open-noatime|recursive|stats|verbose|xattrs|whole-file|"
    r"no-whole-file|bwlimit=[\w.]+|timeout=\d+|skip-compress=[\w./]*|"
    r"block-size=\w+|links|perms|times|group|owner|devices|specials|"
    r"checksum-choice=\w+)"
    r"|-[aAHXzvWlptgoDr]+",
    re.ASCII,
)


def sort_words(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """Of rsync's words those that are filters, and those that are harmless options.

    Raises UnfitError for a filter that may go by more than names, and for an option
    that may change what a list of names brings.
    """
    rules, flags = [], []
    for word in words:
        is_plain = word.startswith(_PATTERN) or _PLAIN.fullmatch(word)
        if is_plain or _file_of(word) is not None:
            rules.append(word)
        elif _HARMLESS.fullmatch(word):
            flags.append(word)
        else:
            raise UnfitError(f"rsync is told {quote(word)}")
    return rules, flags


def is_rule(word: str) -> bool:
    """True if one of rsync's words is a filter of the kinds that sort_words takes."""
    return word.startswith(("--filter=", *_PATTERN, *_PATTERN_FILE))


def fingerprint(
    words: Sequence[str], foreign: Collection[str], others: Sequence[str]
) -> str:
    """A text that tells a selection from any other: rules, their files, ``others``.

    Rules about ``foreign`` mount points are no part of it: such mounts come and go, and
    the walk leaves their contents out by itself.
    Raises UnfitError for rules that go by more than names and where the contents of a
    foreign mount are sent; OSError.
    """
    of_mounts = {word for point in foreign for word in _mount_words(point)}
    digest = hashlib.blake2b(digest_size=16)
    includes = []
    for text in (*(word for word in words if word not in of_mounts), "", *others):
        _add(digest, text.encode("utf-8", "surrogateescape"))
    for word in words:
        if word not in of_mounts:
            includes += _includes(word)
        place = _file_of(word)
        if place is not None:
            data = _read(Path(place))
            if _MERGE.fullmatch(word):
                _check(place, data)
            includes += _included(data)
            _add(digest, data)
    _check_mounts(foreign, frozenset(words), includes)
    return digest.hexdigest()


def _mount_words(point: str) -> Iterator[str]:
    yield f"--exclude={contents_rule(point)}"
    yield f"--exclude={file_rule(point)}"
    yield f"--filter=- {contents_rule(point)}"
    yield f"--filter=- {file_rule(point)}"
    yield f"--filter=+ {file_rule(point)}/"


def _check_mounts(
    foreign: Collection[str], words: Collection[str], includes: Sequence[bytes]
) -> None:
    for point in foreign:
        above = _at_and_above(point)
        left_out = (
            f"{start}{rule(path)}" in words
            for path in above
            for rule in (contents_rule, file_rule)
            for start in ("--filter=- ", "--exclude=")
        )
        place = point.encode("utf-8", "surrogateescape") + b"/"
        if not any(left_out) or any(_may_reach(pattern, place) for pattern in includes):
            raise UnfitError(f"what is mounted at {quote(point)} may be sent as well")


def _at_and_above(point: str) -> list[str]:
    parts = point.strip("/").split("/")
    return ["/" + "/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _may_reach(pattern: bytes, place: bytes) -> bool:
    """True if a pattern may match anything below ``place``. Rather one too many."""
    if not pattern.startswith(b"/"):
        return True
    literal = re.split(rb"[*?\[\\]", pattern, maxsplit=1)[0]
    return place.startswith(literal) or literal.startswith(place)


def _includes(word: str) -> list[bytes]:
    """The pattern of a word that includes something."""
    for start in ("--include=", "--filter=+ ", "--exclude=+ "):
        if word.startswith(start):
            return [word.removeprefix(start).encode("utf-8", "surrogateescape")]
    return []


def _included(data: bytes) -> list[bytes]:
    """Patterns in a file of rules that include something, or may do so."""
    lines = re.split(rb"[\r\n]", data)
    return [line[2:] for line in lines if line.startswith(b"+ ")]


def _file_of(word: str) -> str | None:
    """The file that a rule is read from."""
    merged = _MERGE.fullmatch(word)
    if merged is not None:
        return merged[1]
    for option in _PATTERN_FILE:
        if word.startswith(f"{option}/"):
            return word.removeprefix(option)
    return None


def _add(digest: hashlib.blake2b, data: bytes) -> None:
    digest.update(len(data).to_bytes(8, "big") + data)


def _read(place: Path) -> bytes:
    with place.open("rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise UnfitError(f"{quote(str(place))} is too large")
    return data


def _check(place: str, data: bytes) -> None:
    for line in re.split(rb"[\r\n]", data):
        if not (_RULE.fullmatch(line) or _COMMENT.fullmatch(line)):
            raise UnfitError(f"{quote(place)} holds rules that go by more than names")
