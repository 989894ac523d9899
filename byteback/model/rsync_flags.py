"""The words that an administrator has rsync given, read as rsync's own popt does."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

# Letters by their long names; the second table has those that a value follows.
LETTERS = {
    "v": "verbose",
    "q": "quiet",
    "c": "checksum",
    "a": "archive",
    "r": "recursive",
    "R": "relative",
    "b": "backup",
    "u": "update",
    "d": "dirs",
    "l": "links",
    "L": "copy-links",
    "k": "copy-dirlinks",
    "K": "keep-dirlinks",
    "p": "perms",
    "H": "hard-links",
    "E": "executability",
    "A": "acls",
    "X": "xattrs",
    "o": "owner",
    "g": "group",
    "t": "times",
    "U": "atimes",
    "N": "crtimes",
    "O": "omit-dir-times",
    "J": "omit-link-times",
    "S": "sparse",
    "n": "dry-run",
    "W": "whole-file",
    "x": "one-file-system",
    "m": "prune-empty-dirs",
    "y": "fuzzy",
    "C": "cvs-exclude",
    "z": "compress",
    "I": "ignore-times",
    "i": "itemize-changes",
    "h": "human-readable",
    "0": "from0",
    "4": "ipv4",
    "6": "ipv6",
    "8": "8-bit-output",
    "s": "secluded-args",
}
VALUE_LETTERS = {
    "B": "block-size",
    "e": "rsh",
    "f": "filter",
    "M": "remote-option",
    "T": "temp-dir",
    "@": "modify-window",
}
# Long options whose value may be the next word (rsync 3.1 to 3.5).
WITH_VALUE = frozenset(
    {
        *VALUE_LETTERS.values(),
        *("address", "backup-dir", "bwlimit", "cc", "checksum-choice", "checksum-seed"),
        *("chmod", "chown", "compare-dest", "compress-choice", "compress-level"),
        *("compress-threads", "confine-root"),  # rsync 3.5
        *("contimeout", "copy-as", "copy-dest", "debug", "early-input", "exclude"),
        *("exclude-from", "files-from", "groupmap", "iconv", "include", "include-from"),
        *("info", "link-dest", "log-file", "log-file-format", "log-format"),
        *("max-alloc", "max-delete", "max-size", "min-size", "only-write-batch"),
        *("out-format", "outbuf", "partial-dir", "password-file", "port", "protocol"),
        *("read-batch", "rsync-path", "skip-compress", "sockopts", "stderr"),
        *("stop-after", "stop-at", "suffix", "time-limit", "timeout", "usermap"),
        *("write-batch", "zc", "zl"),
    }
)
ONE_FILE_SYSTEM = "one-file-system"
# They decide which names are sent; "-F" has no long name.
FILTERS = frozenset(
    {
        *("exclude", "exclude-from", "include", "include-from", "filter"),
        *("F", "cvs-exclude"),
    }
)


class Flag(NamedTuple):
    """One option: ``-x``, ``--exclude PATTERN``, ``--no-perms``."""

    name: str  # the long name without dashes and "no-"; the letter where it has none
    words: tuple[str, ...]  # what gives rsync this option alone
    value: str | None = None
    is_negated: bool = False
    times: int = 1  # how often its letter stands in one word: 2 for -xx


class StrayWordError(ValueError):
    """A word is neither an option nor the value of one; it is the argument."""


def parse_flags(words: Sequence[str]) -> list[Flag]:
    """Read ``words`` into options. Raises StrayWordError."""
    return list(_read(iter(words)))


def collapse(words: Sequence[str], given: Collection[str]) -> list[str]:
    """``words`` without what is said already, by them or by our ``given`` options.

    rsync counts how often some of its options are given: -XX and -xx are not what -X
    and -x are. Two letters in one word, ``-xx``, are kept as meant, unless the option
    is one of ``given``, which are long names. Raises StrayWordError.
    """
    said = set(given)
    kept: list[str] = []
    for flag in parse_flags(words):
        if flag.is_negated:
            # Whatever it was part of, as -p is of -a, may be asked for again.
            said -= {flag.name, "archive", "D"}
        elif flag.value is None:
            if flag.name in said:
                continue
            said.add(flag.name)
        kept += flag.words
    return kept


def take_one_file_system(words: Sequence[str]) -> tuple[list[str], int]:
    """``words`` without -x, and how much of it they say: 0, 1, or 2 for -xx."""
    level = 0
    kept: list[str] = []
    for flag in parse_flags(words):
        if flag.name != ONE_FILE_SYSTEM:
            kept += flag.words
        elif flag.is_negated:
            level = 0
        else:
            level = max(level, min(flag.times, 2))
    return kept, level


def filters(words: Sequence[str]) -> list[Flag]:
    """Those of ``words`` that decide which names are sent, in their order."""
    return [flag for flag in parse_flags(words) if flag.name in FILTERS]


def _read(words: Iterator[str]) -> Iterator[Flag]:
    for word in words:
        if word == "--" or not word.startswith("-") or word == "-":
            raise StrayWordError(word)
        if word.startswith("--"):
            yield _read_long(word, words)
        else:
            yield from _read_letters(word, words)


def _read_long(word: str, following: Iterator[str]) -> Flag:
    name, equals, value = word[2:].partition("=")
    if equals:
        return Flag(name, (word,), value)
    if name in WITH_VALUE:
        value = _next(word, following)
        return Flag(name, (f"--{name}={value}",), value)
    if name.startswith("no-"):
        plain = name.removeprefix("no-")
        return Flag(LETTERS.get(plain, plain), (word,), is_negated=True)
    return Flag(name, (word,))


def _read_letters(word: str, following: Iterator[str]) -> Iterator[Flag]:
    letters, value_letter, value = _split(word[1:])
    for letter in dict.fromkeys(letters):
        count = letters.count(letter)
        name = LETTERS.get(letter, letter)
        yield Flag(name, (f"-{letter * count}",), times=count)
    if value_letter:
        name = VALUE_LETTERS[value_letter]
        value = value.removeprefix("=") or _next(word, following)
        yield Flag(name, (f"--{name}={value}",), value)


def _split(letters: str) -> tuple[str, str, str]:
    """Letters without a value, the one that has one, and its value."""
    for position, letter in enumerate(letters):
        if letter in VALUE_LETTERS:
            return letters[:position], letter, letters[position + 1 :]
    return letters, "", ""


def _next(word: str, following: Iterable[str]) -> str:
    for value in following:
        return value
    raise StrayWordError(word)
