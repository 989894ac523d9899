"""True if rsync compresses what it sends: as asked for, or as the line needs it."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

from byteback.client.settings import AUTO, ZSTD
from byteback.client.transport import line_probe
from byteback.client.transport.connection import Connection
from byteback.errors import BytebackError
from byteback.wire.replies import Hello

logger = logging.getLogger(__name__)

# rsync 3.2 and later agree on zstd, an earlier one on either side makes it zlib.
OPTION = "--compress"
# Bytes a second: 0.5 Gbit/s. A faster line waits for zstd, and not zstd for the line.
FAST = 62_500_000.0

_LONG = ("--compress", "--new-compress", "--old-compress", "--zc", "--zl", "--zz")
_NEGATED = ("--no-compress", "--no-z")
# Among single letters, but not in the value of one that takes a value.
_LETTER = re.compile(r"-(?:(?![BTMef])[A-Za-z0468])*z")


@dataclass(frozen=True)
class Greeting:
    """The answer to the ping, and its consequence for the transfer."""

    hello: Hello
    compresses: bool
    is_recalled: bool = False  # the server has not been asked in this run


def greet(connection: Connection, choice: str, flags: Sequence[str]) -> Greeting:
    """Ping, and decide; the line is measured where that decides.

    ``flags`` are those of rsync_flags: if they say something, that stands alone.
    Raises as Connection.ping.
    """
    if choice != AUTO or is_said(flags):
        return Greeting(connection.ping(), choice == ZSTD and not is_said(flags))
    hello, rate = line_probe.ping(connection, FAST)
    compresses = rate is not None and rate < FAST
    logger.debug("%s", sentence(rate))
    return Greeting(hello, compresses)


def choose(connection: Connection, choice: str, flags: Sequence[str]) -> bool:
    """Decide for who has no other need of a ping; what fails there is no failure."""
    if choice != AUTO or is_said(flags):
        return choice == ZSTD and not is_said(flags)
    try:
        return greet(connection, choice, flags).compresses
    except BytebackError as error:
        logger.debug("not compressing: %s", error.message)
        return False


def is_said(flags: Sequence[str]) -> bool:
    """True if ``flags`` say themselves whether and how to compress."""
    return any(
        word.startswith((*_LONG, *_NEGATED)) or _LETTER.match(word) for word in flags
    )


def sentence(rate: float | None) -> str:
    """The choice at ``rate`` bytes a second, and its reason."""
    if rate is None:
        return "not compressing: the line could not be measured"
    if rate < FAST:
        return f"compressing: the line carries about {format_rate(rate)}"
    return f"not compressing: the line carries about {format_rate(rate)}"


def format_rate(rate: float) -> str:
    """``12 MB/s``, or kB/s for less than one of those; decimal, as of all lines."""
    if rate < 1e6:
        return f"{rate / 1e3:.0f} kB/s"
    return f"{rate / 1e6:.0f} MB/s"
