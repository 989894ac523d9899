"""What a backup was made of, as it goes over the line: the sources of a transfer."""

from __future__ import annotations

from collections.abc import Sequence

from byteback.errors import RefusedError
from byteback.model.coverage import MORE

MAX_SOURCES = 100
MAX_LENGTH = 8000  # characters of the word; a request has 128 KiB in all
MAX_PATH = 4096  # bytes


def format_sources(sources: Sequence[str]) -> str:
    """Absolute paths as one word of a request."""
    from urllib.parse import quote_from_bytes

    words: list[str] = []
    length = 0
    for source in sources:
        word = quote_from_bytes(source.encode("utf-8", "surrogateescape"))
        length += len(word) + 1
        if length > MAX_LENGTH or len(words) == MAX_SOURCES:
            return ",".join([*words, MORE])
        words.append(word)
    return ",".join(words)


def parse_sources(word: str) -> tuple[str, ...]:
    """Read what format_sources wrote; raises RefusedError for anything else."""
    from urllib.parse import unquote_to_bytes

    words = word.split(",")
    if len(words) > MAX_SOURCES + 1 or len(word) > 2 * MAX_LENGTH:
        raise RefusedError("the request names too many sources")
    found = tuple(
        unquote_to_bytes(word).decode("utf-8", "surrogateescape") for word in words
    )
    return check_sources(found)


def check_sources(sources: Sequence[object]) -> tuple[str, ...]:
    """Sources that another machine, or an earlier version, has told.

    Raises RefusedError for what cannot be any.
    """
    if not sources or len(sources) > MAX_SOURCES + 1:
        raise RefusedError("the number of sources cannot be right")
    found = []
    for position, source in enumerate(sources):
        is_more = source == MORE and position == len(sources) - 1 > 0
        if not (isinstance(source, str) and (is_more or _is_path(source))):
            raise RefusedError("what is called a source is no absolute path")
        found.append(source)
    return tuple(found)


def _is_path(source: str) -> bool:
    return (
        source.startswith("/")
        and "\0" not in source
        and len(source.encode("utf-8", "surrogateescape")) <= MAX_PATH
    )
