"""byteback-restore --host: another machine's files, for root on the server (D54)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from byteback.client.restore.query import Server
from byteback.client.settings import NONE, RUN_DIRECTORY, Files
from byteback.client.transport.local import Origin
from byteback.errors import UsageError
from byteback.server.fleet import roster
from byteback.server.store import opening
from byteback.server.store.layout import find_store
from byteback.system import host, privilege

# This machine's own configuration says nothing about another one's files.
NO_FILES = Files(RUN_DIRECTORY / "no-configuration")
CONTRADICTING = ("destination", "ssh_key", "compress", "in_place")


def check_words(words: Mapping[str, Any]) -> None:
    """Raise UsageError for options that have no meaning beside --host."""
    for name in CONTRADICTING:
        if words[name]:
            option = "--" + name.replace("_", "-")
            raise UsageError(
                f"--host and {option} contradict each other",
                hint="restore below a directory with --to, and hand that over"
                if name == "in_place"
                else "--host reads the store of this machine, without ssh",
            )


def find_server(client: str, io_timeout_s: int | None) -> Server:
    """The store of this machine, for root. Raises as opened_store and find_name."""
    privilege.require_root("only root on the server can use --host")
    find_store()
    with opening.opened_store() as store:
        name = roster.client_named(store, client)
    receive = host.program_path("byteback-receive")
    origin = Origin(name, receive, store.state)
    return Server(None, None, io_timeout_s, NONE, origin, NO_FILES)
