"""Clients that root retires are handed over to no server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from byteback import locking
from byteback.errors import RefusedError
from byteback.model.destination import parse_destination
from byteback.model.public_key import PublicKey
from byteback.server.fleet import moving as fleet_moving
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


def test_no_two_processes_change_a_note_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root's own commands and the second server's requests."""
    (tmp_path / CLIENT / "current").mkdir(parents=True)
    (tmp_path / ".ssh").mkdir(mode=0o700)
    store = Store(tmp_path)
    key = KEY.line.split(" ")[1]
    receive = "/usr/bin/byteback-receive"
    store.authorized_keys.write_text(
        f'command="{receive} --host {CLIENT}",restrict ssh-ed25519 {key}\n'
        f'command="{receive} --replica {SERVER}",restrict ssh-ed25519 {key[:-2]}AB\n'
    )
    real, locked = move_note.write, []

    def write(store: Store, client: str, note: MoveNote) -> None:
        locked.append(locking.is_held(store.state / move_note.LOCK))
        real(store, client, note)

    monkeypatch.setattr(move_note, "write", write)
    destination = parse_destination("byteback@new:")
    fleet_moving.move(store, CLIENT, SERVER, destination, dry_run=False)
    ask(store, moving.Close(CLIENT))
    said = fleet_moving.undo(store, CLIENT, dry_run=True)
    ask(store, moving.Taken(CLIENT, KEY))
    assert locked == [True] * 3
    assert "would" in said[0]
    other = parse_destination("byteback@elsewhere:")
    with pytest.raises(RefusedError, match="on its way"):
        fleet_moving.move(store, CLIENT, SERVER, other, dry_run=False)
