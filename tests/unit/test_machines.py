"""Two machines with one key are told apart, as far as they say which one they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from byteback.client.transport import identity
from byteback.client.transport.connection import Connection
from byteback.errors import RefusedError
from byteback.model.destination import Destination
from byteback.server.store import machines
from byteback.server.store.layout import Store
from byteback.system import host
from byteback.wire.failures import Reason
from byteback.wire.replies import (
    Claimed,
    Hello,
    format_reply,
    parse_claimed,
    parse_hello,
)

NAME = "client.example"
ONE, OTHER = "1" * 32, "2" * 32


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / ".byteback/hosts").mkdir(parents=True)
    (tmp_path / NAME).mkdir()
    return Store(tmp_path)


def test_the_first_machine_is_the_client(store: Store) -> None:
    for machine in (None, ONE, OTHER):
        machines.check(store, NAME, machine)
    machines.remember(store, NAME, None)
    machines.remember(store, NAME, ONE)
    machines.remember(store, NAME, OTHER)
    machines.check(store, NAME, ONE)
    assert machines.counts(store, [NAME]) == {}
    with pytest.raises(RefusedError, match="another machine") as refused:
        machines.check(store, NAME, OTHER)
    assert refused.value.reason == Reason.OTHER_MACHINE
    assert "byteback-setup-client" in str(refused.value.hint)
    assert machines.counts(store, [NAME]) == {NAME: 2}
    machines.check(store, NAME, None)  # an old client says nothing of itself


def test_another_machine_can_take_its_place(store: Store) -> None:
    assert not machines.claim(store, NAME, ONE)
    assert not machines.claim(store, NAME, ONE)
    with pytest.raises(RefusedError):
        machines.check(store, NAME, OTHER)
    assert machines.claim(store, NAME, OTHER)
    assert machines.counts(store, [NAME]) == {}
    machines.check(store, NAME, OTHER)
    with pytest.raises(RefusedError):
        machines.check(store, NAME, ONE)


@pytest.mark.parametrize("damage", [b"", b"\0" * 100, b"\xff", b"../x\n"])
def test_a_note_that_is_damaged_is_none(store: Store, damage: bytes) -> None:
    machines.claim(store, NAME, ONE)
    (note,) = (store.state / "hosts").iterdir()
    note.write_bytes(damage)
    machines.check(store, NAME, OTHER)
    machines.remember(store, NAME, OTHER)
    machines.check(store, NAME, OTHER)


def test_a_machine_that_does_not_come_any_more_is_forgotten(store: Store) -> None:
    machines.claim(store, NAME, ONE)
    with pytest.raises(RefusedError):
        machines.check(store, NAME, OTHER)
    for note in (store.state / "hosts").iterdir():
        os.utime(note, (0, 0))
    assert machines.counts(store, [NAME]) == {}


@pytest.mark.parametrize(
    ("text", "is_known"),
    [
        ("0123456789abcdef" * 2 + "\n", True),
        ("", False),
        ("uninitialized\n", False),
        ("0" * 32 + "\n", False),
        ("0123456789ABCDEF" * 2, False),
        ("\xe9", False),
    ],
)
def test_a_machine_id(tmp_path: Path, text: str, is_known: bool) -> None:
    path = tmp_path / "machine-id"
    path.write_text(text, encoding="latin-1")
    assert host.machine_id(path) == (text.strip() if is_known else None)
    assert host.machine_id(tmp_path / "gone") is None


def test_the_id_itself_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection(Destination("u", "h"), Path("k"), None, None)
    hello = Hello("1", 1, "h", machines=True)
    ids = ["a" * 32, "b" * 32]
    told = set()
    for machine_id in ids:
        monkeypatch.setattr(host, "machine_id", lambda found=machine_id: found)
        for _ in range(2):
            told.add(identity.introduce(connection, hello).machine)
        old = hello._replace(machines=False)
        assert identity.introduce(connection, old).machine is None
    assert len(told) == 2
    assert not told & set(ids)
    monkeypatch.setattr(host, "machine_id", lambda: None)
    assert identity.introduce(connection, hello).machine is None


def test_replies_of_older_and_newer_servers() -> None:
    hello = Hello("1", 1, "h", machines=True, details=True)
    assert parse_hello(format_reply(hello)) == hello
    older = parse_hello('{"byteback": "1", "protocol": 1, "host": "h"}')
    assert (older.machines, older.details) == (False, False)
    claimed = Claimed("h", was_other=True)
    assert parse_claimed(format_reply(claimed)) == claimed
    with pytest.raises(RefusedError):
        parse_claimed('{"host": "h", "was_other": "yes"}')


def test_a_client_is_found_whatever_the_case(store: Store) -> None:
    (store.root / NAME / "current").mkdir()
    assert store.client_name(NAME) == NAME
    assert store.client_name(NAME.upper()) == NAME
    assert store.client_name("other") is None
    (store.root / NAME.upper() / "current").mkdir(parents=True)
    assert store.client_name(NAME.upper()) == NAME.upper()
