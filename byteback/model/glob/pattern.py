"""Patterns for file names, with the rules of Ruby's Dir.glob without its flags.

``*`` and ``?`` match within one name and never a leading dot, ``**/`` stands for any
number of directories that are not hidden, ``[set]`` for one character (``!`` or ``^``
negates it), ``{a,b}`` for alternatives, and a backslash takes the meaning away from the
character behind it. A ``[`` or ``{`` that is never closed matches nothing.

Where Ruby 3.1 does otherwise, this is meant: ``.*`` is never the directory itself,
braces mean what each alternative means by itself, ``//`` and ``\\/`` are a slash behind
wildcards and ``**/`` as well, and a byte that is no UTF-8 matches itself.

Names are text in which bytes that are no UTF-8 are surrogates. Patterns come from
clients that may be hostile: the work spent on one is bounded.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import NamedTuple

from byteback.errors import RefusedError

MAX_ALTERNATIVES = 100_000  # patterns in one request after braces are expanded
MAX_WORK = 5_000_000  # characters looked at for that
NARROW = "narrow your pattern"

_BRACE_TOKEN = re.compile(r"\\.|[{},]", re.DOTALL)
_SPLIT_TOKEN = re.compile(r"\\.|[\[\]/]", re.DOTALL)
_SPECIAL = re.compile(r"([\\*?\[\]{}])")
_WILD = re.compile(r"\\.|[*?\[]", re.DOTALL)


class Literal(NamedTuple):
    """One name, exactly."""

    name: str


class Wild(NamedTuple):
    """Names that a regular expression matches as a whole."""

    regex: re.Pattern[str]

    def matches(self, name: str) -> bool:
        """True if ``name``, one component of a path, matches."""
        return self.regex.fullmatch(name) is not None


class Deep(NamedTuple):
    """``**/``: no directory at all, or any number of nested ones, none hidden."""


Component = Literal | Wild | Deep


class Pattern(NamedTuple):
    """An absolute pattern by its components; none at all stands for the root."""

    components: tuple[Component, ...]
    directories_only: bool  # it ended in a slash, or in one and a dot


class _Budget:
    """The work that one request may still cause."""

    def __init__(self) -> None:
        self.alternatives = MAX_ALTERNATIVES
        self.characters = MAX_WORK

    def spend(self, text: str) -> None:
        self.characters -= len(text)
        if self.characters < 0 or self.alternatives < 0:
            raise RefusedError(
                "the pattern has too many alternatives in braces", hint=NARROW
            )


def compile_patterns(texts: Iterable[str]) -> list[Pattern]:
    """Compile absolute patterns; braces make several out of one.

    Braces are expanded first and ``..`` is resolved last: a brace can hide a ``..``
    from a caller who looks for it earlier. No component is ever ``.`` or ``..``, so
    that no pattern leads above the root. A relative pattern is taken from the root.
    Raises RefusedError for more alternatives than any user needs.
    """
    budget = _Budget()
    return [
        _compile(alternative) for text in texts for alternative in _expand(text, budget)
    ]


def make_absolute(text: str, directory: str) -> list[str]:
    """Absolute patterns for ``text``, as a user in ``directory`` means it.

    Braces are expanded, for one alternative may be absolute and another relative.
    """
    base = escape_name(directory).rstrip("/")
    return [
        alternative if alternative.startswith("/") else f"{base}/{alternative}"
        for alternative in _expand(text, _Budget())
    ]


def escape_name(name: str) -> str:
    """A pattern that matches exactly ``name``, a file name or a path."""
    return _SPECIAL.sub(r"\\\1", name)


def expand_braces(text: str) -> list[str]:
    """All alternatives that ``text`` stands for, in order; raises RefusedError."""
    return _expand(text, _Budget())


def _expand(text: str, budget: _Budget) -> list[str]:
    if "{" not in text:
        budget.alternatives -= 1
        budget.spend("")
        return [text]
    done = []
    pending = [text]
    while pending:
        current = pending.pop()
        budget.spend(current)
        group = _first_group(current)
        if group is None:
            continue
        start, ends, end = group
        if not ends:
            budget.alternatives -= 1
            done.append(current)
            continue
        pieces = [
            current[:start] + current[before + 1 : after] + current[end + 1 :]
            for before, after in itertools.pairwise([start, *ends])
        ]
        for piece in pieces:
            budget.spend(piece)
        pending += reversed(pieces)
    return done


def _first_group(text: str) -> tuple[int, list[int], int] | None:
    """The places where the first outermost brace opens, divides and closes.

    No ends at all if there is no brace left; None if one is never closed.
    """
    start, depth = -1, 0
    ends: list[int] = []
    for token in _BRACE_TOKEN.finditer(text):
        character = token[0]
        if character == "{":
            if depth == 0:
                start = token.start()
            depth += 1
        elif character == "," and depth == 1:
            ends.append(token.start())
        elif character == "}" and depth:
            depth -= 1
            if depth == 0:
                return start, [*ends, token.start()], token.start()
    return None if depth else (0, [], 0)


def _compile(text: str) -> Pattern:
    *parts, last = map(_compile_component, _split(text))
    if last == Deep():  # without a slash behind it "**" is no more than "*"
        last = _STAR
    components: list[Component] = []
    for component in [*parts, last]:
        if component == Literal(".."):
            del components[-1:]
        elif component in (Literal("."), Literal("")):
            pass
        elif component != Deep() or components[-1:] != [component]:
            components.append(component)
    directories_only = last in (Literal("."), Literal(""))
    if components[-1:] == [Deep()] and not directories_only:  # from "**/a/.."
        components[-1] = _STAR
    return Pattern(tuple(components), bool(components) and directories_only)


def _split(text: str) -> list[str]:
    """Components between slashes; a slash inside a set separates nothing."""
    parts = []
    start, in_set = 0, False
    for token in _SPLIT_TOKEN.finditer(text):
        if token[0] == "[":
            in_set = True
        elif token[0] == "]":
            in_set = False
        elif token[0] == "\\/" or (token[0] == "/" and not in_set):
            parts.append(text[start : token.start()])
            start = token.end()
    return [*parts, text[start:]]


def _compile_component(text: str) -> Component:
    if text == "**":
        return Deep()
    if all(token[0].startswith("\\") for token in _WILD.finditer(text)):
        return Literal(_unescape(text))
    return Wild(_compile_wild(text))


def _compile_wild(text: str) -> re.Pattern[str]:
    """A regular expression that takes no more than quadratic time on any name.

    Each ``*`` but the last takes as little as it can and never reconsiders (an atomic
    group), which is right because what follows it matches at its first chance.
    """
    segments: list[str] = [""]
    position = 0
    while position < len(text):
        if text[position] == "*":
            position += 1
            segments.append("")
            continue
        item, position = _compile_character(text, position)
        segments[-1] += item
    first, *rest = segments
    middles = "".join(f"(?>.*?{segment})" for segment in rest[:-1] if segment)
    last = f".*{rest[-1]}" if rest else ""
    # A leading dot must be written as one; a set or wildcard does not match it.
    guard = "" if text.startswith((".", "\\.")) else r"(?!\.)"
    return re.compile(guard + first + middles + last, re.DOTALL)


def _compile_character(text: str, position: int) -> tuple[str, int]:
    character = text[position]
    if character == "?":
        return ".", position + 1
    if character == "[":
        return _compile_set(text, position + 1)
    if character == "\\":
        return re.escape(text[position + 1 : position + 2]), position + 2
    return re.escape(character), position + 1


def _compile_set(text: str, position: int) -> tuple[str, int]:
    negated = text[position : position + 1] in ("!", "^")
    position += negated
    items: list[str] = []
    while position < len(text):
        if text[position] == "]":
            return _format_set(items, negated=negated), position + 1
        low, position = _set_member(text, position)
        if text[position : position + 1] == "-" and text[
            position + 1 : position + 2
        ] not in ("]", ""):
            high, position = _set_member(text, position + 1)
            # Backwards, a range holds its two ends alone.
            between = "-" if low <= high else ""
            items.append(re.escape(low) + between + re.escape(high))
        else:
            items.append(re.escape(low))
    return "(?!)", position


def _set_member(text: str, position: int) -> tuple[str, int]:
    if text[position] == "\\" and position + 1 < len(text):
        return text[position + 1], position + 2
    return text[position], position + 1


def _format_set(items: list[str], *, negated: bool) -> str:
    if not items:
        return "." if negated else "(?!)"
    return f"[{'^' if negated else ''}{''.join(items)}]"


def _unescape(text: str) -> str:
    return re.sub(r"\\(.?)", r"\1", text, flags=re.DOTALL)


_STAR = Wild(_compile_wild("*"))
