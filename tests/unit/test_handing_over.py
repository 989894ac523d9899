"""Clients that root retires are handed over to no server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from byteback.errors import RefusedError
from byteback.model.public_key import PublicKey
from byteback.server.replicate import handing_over
from byteback.server.store import move_note, retirement
from byteback.server.store.layout import Store
from byteback.server.store.move_note import MoveNote
from byteback.server.store.retirement import Retired
from byteback.wire import moving, replication

CLIENT, SERVER = "www.example", "second.example"
KEY = PublicKey("ssh-ed25519", b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32))


def ask(store: Store, request: moving.ListMoves | moving.Close | moving.Taken) -> str:
    words = replication.format_request(request).encode()
    found = replication.parse_request(words)
    assert isinstance(found, type(request))
    return "".join(handing_over.serve(store, SERVER, found))


def test_a_client_that_was_retired_on_its_way(tmp_path: Path) -> None:
    (tmp_path / CLIENT / "current").mkdir(parents=True)
    (tmp_path / ".ssh").mkdir()
    store = Store(tmp_path)
    store.authorized_keys.touch()
    move_note.write(store, CLIENT, MoveNote(SERVER, "byteback@new:"))
    assert json.loads(ask(store, moving.ListMoves()))["client"] == CLIENT
    retirement.write(store, CLIENT, Retired(1.0, None))
    assert ask(store, moving.ListMoves()) == ""
    with pytest.raises(RefusedError, match="is retired"):
        ask(store, moving.Close(CLIENT))
    retirement.forget(store, CLIENT)
    ask(store, moving.Close(CLIENT))
    retirement.write(store, CLIENT, Retired(1.0, None))
    with pytest.raises(RefusedError, match="is retired"):
        ask(store, moving.Taken(CLIENT, KEY))
    retirement.forget(store, CLIENT)
    ask(store, moving.Taken(CLIENT, KEY))
    note = move_note.read(store, CLIENT)
    assert note is not None
    assert note.state == move_note.MOVED
