"""Tells the server which machine this is, so that it can tell a copy of it (D38)."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

from byteback.client.transport.connection import Connection
from byteback.system import host
from byteback.wire.replies import Hello

LENGTH = 32  # hexadecimal digits


def machine_name() -> str | None:
    """A name for this machine, the same in each backup; None: it has none.

    The machine-id itself is not told to others: a keyed digest is (machine-id(5)).
    """
    machine_id = host.machine_id()
    if machine_id is None:
        return None
    digest = hmac.new(machine_id.encode("ascii"), b"byteback", hashlib.sha256)
    return digest.hexdigest()[:LENGTH]


def introduce(connection: Connection, hello: Hello) -> Connection:
    """``connection``, over which backups say which machine sends them.

    Older servers do not know the word.
    """
    return replace(connection, machine=machine_name() if hello.machines else None)
