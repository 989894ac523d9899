"""Goes by what the server said last, where only a little is to be sent (D53).

A backup's first session only asks. Where the record tells that a few small changes are
all there is, the transfer itself asks as much: the server takes it for the very tree
that the record is of, or refuses it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from byteback.client.backup import last_run
from byteback.client.record import keeper
from byteback.client.record.keeper import Place
from byteback.client.transport.compression import Greeting
from byteback.wire.replies import PROTOCOL, Hello

# D53: so little that nothing is lost where the line has become another one meanwhile.
MAX_NAMES = 1000
MAX_BYTES = 8 << 20
MAX_HOST = 255  # characters


@dataclass(frozen=True)
class Way:
    """The way to a server, as far as an answer of it depends on that."""

    destination: str
    compress: str  # the choice, one of settings.COMPRESSION


def recall(place: Place, way: Way) -> Greeting | None:
    """The server's greeting of the last backup by this ``way``, if it may stand.

    It names the tree that the record is of.
    """
    notes = last_run.read()
    if notes.is_incomplete or notes.failing_since is not None:
        return None
    found = keeper.last_server(place)
    if found is None:
        return None
    token, told = found
    host, compresses = told.get("host"), told.get("compresses")
    if not isinstance(host, str) or not 0 < len(host) <= MAX_HOST:
        return None
    if told.get("way") != [way.destination, way.compress]:
        return None
    if not isinstance(compresses, bool):
        return None
    hello = Hello(
        *("", PROTOCOL, host),
        tree=token,
        machines=told.get("machines") is True,
        details=told.get("details") is True,
    )
    return Greeting(hello, compresses, is_recalled=True)


def note(greeting: Greeting, way: Way) -> dict[str, Any]:
    """The words of a record from which recall makes ``greeting``."""
    hello = greeting.hello
    return {
        "way": [way.destination, way.compress],
        "host": hello.host,
        "machines": hello.machines,
        "details": hello.details,
        "compresses": greeting.compresses,
    }


def is_little(names: Collection[str], root: str, foreign: Iterable[str]) -> bool:
    """True if ``names`` are few, and small files.

    ``names`` are a TransferList's, below ``root``. ``foreign`` mount points are not
    looked at: they may be silent.
    """
    if len(names) > MAX_NAMES:
        return False
    silent = {point.strip("/") for point in foreign}
    size = 0
    for name in names:
        path = name.removeprefix("./")
        if path.strip("/") in silent:
            continue
        with contextlib.suppress(OSError):
            found = os.lstat(f"{root.rstrip('/')}/{path}")
            size += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return size <= MAX_BYTES
