"""A second server goes by what the first one says at the last moment."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from byteback.errors import BytebackError, NotSetUpError, RefusedError
from byteback.model.destination import parse_destination
from byteback.model.public_key import PublicKey
from byteback.server.replicate import accepting, admission, fetch
from byteback.server.replicate.fetch import Outcome
from byteback.server.replicate.sources import Source
from byteback.server.store import move_note, replica_note
from byteback.server.store.layout import Store
from byteback.server.store.move_note import MoveNote
from byteback.server.store.replica_note import ReplicaNote
from byteback.wire import moving, replication

CLIENT = "www.example"
SOURCE = Source("first", parse_destination("byteback@first:"))


def key(number: int) -> PublicKey:
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes([number]) * 32
    return PublicKey("ssh-ed25519", blob, f"key {number}")


@dataclass
class FirstServer:
    """Answers requests, and changes while the client's history is fetched."""

    state: str = move_note.OPEN
    key: PublicKey = field(default_factory=lambda: key(1))
    is_listed: bool = True
    at_last: Callable[[FirstServer], None] = lambda _: None
    fetched: int = 0
    taken: bool = False

    def ask(self, request: replication.Request) -> bytes:
        match request:
            case moving.ListMoves():
                if not self.state:
                    return b""
                line = {"key": self.key.line, "options": {}}
                fields: dict[str, object] = {"client": CLIENT, "state": self.state}
                fields |= {"lines": [line]}
                fields |= {"destination": "byteback@new:", "machine": None}
                return json.dumps(fields | {"sealed": False}).encode()
            case moving.Close():
                self.state = move_note.CLOSED
            case moving.Taken():
                self.taken = True
        return b""

    def fetch(self, *_: object) -> Outcome:
        self.fetched += 1
        if self.fetched == 2:
            self.at_last(self)
        return Outcome(listed=int(self.is_listed))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / CLIENT / "current").mkdir(parents=True)
    store = Store(tmp_path)
    replica_note.write(store, CLIENT, ReplicaNote(SOURCE.name, {}))
    return store


@pytest.fixture
def accept(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.setattr("byteback.server.access.enrolment.make_place", lambda *_: None)

    def run(first: FirstServer) -> str:
        @contextlib.contextmanager
        def connected(_: Source) -> Iterator[SimpleNamespace]:
            yield SimpleNamespace(ask=first.ask, name="'first'")

        monkeypatch.setattr(accepting, "connected", connected)
        monkeypatch.setattr(fetch, "fetch", first.fetch)
        (move,) = accepting.waiting(SOURCE)
        program = Path("/usr/bin/byteback-receive")
        return accepting.accept(store, SOURCE, move, key(9), program)

    return run


def lets_in(store: Store, wanted: PublicKey) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return wanted.line in store.authorized_keys.read_text("utf-8")
    return False


def test_a_key_that_was_replaced_meanwhile_is_not_let_in(
    store: Store, accept: Callable[..., str]
) -> None:
    first = FirstServer(at_last=lambda one: setattr(one, "key", key(2)))
    assert f"accepted {CLIENT}" in accept(first)
    assert first.taken
    assert (lets_in(store, key(1)), lets_in(store, key(2))) == (False, True)


@pytest.mark.parametrize(
    ("state", "error"), [("", NotSetUpError), (move_note.OPEN, RefusedError)]
)
def test_a_client_that_was_kept_there_meanwhile_is_not_taken(
    store: Store, accept: Callable[..., str], state: str, error: type[BytebackError]
) -> None:
    first = FirstServer(at_last=lambda one: setattr(one, "state", state))
    with pytest.raises(error):
        accept(first)
    assert not first.taken
    assert not lets_in(store, key(1))
    assert replica_note.is_copy(store, CLIENT)


def test_a_client_that_is_not_listed_is_not_taken(
    store: Store, accept: Callable[..., str]
) -> None:
    """That nothing is missing here says nothing then."""
    first = FirstServer(is_listed=False)
    with pytest.raises(RefusedError, match="nothing of the history"):
        accept(first)
    assert first.state == move_note.OPEN
    assert not lets_in(store, key(1))


def test_a_client_that_comes_back_is_not_sent_away_again(
    store: Store, accept: Callable[..., str]
) -> None:
    gone = MoveNote("first", "byteback@first:", move_note.MOVED, key(1).line)
    move_note.write(store, CLIENT, gone)
    accept(FirstServer())
    move_note.check(store, CLIENT)


def test_nothing_is_known_of_a_client_that_is_adopted(store: Store) -> None:
    """Its own backups went there last, maybe: all contents are compared once."""
    replica_note.path(store, CLIENT).unlink()
    admission.adopt(store, CLIENT, SOURCE.name)
    note = replica_note.read(store, CLIENT)
    assert note is not None
    assert (note.source, note.under_way) == (SOURCE.name, replica_note.UNKNOWN)
