"""A change of a client that is killed anywhere is finished, or was never begun."""

from __future__ import annotations

from functools import partial
from itertools import count

from byteback.server.fleet import removal, renaming
from byteback.server.prune import repair
from byteback.server.store import change, opening
from tests.integration.fleet import cut_off
from tests.integration.fleet.store import FleetStore
from tests.integration.sealing.store import is_sealed

HOST = "www.example"


def make_client(store: FleetStore, host: str) -> None:
    """A client with a key, two sealed snapshots, rows and notes."""
    store.client(host)
    store.let_in(host)
    for days in (20, 10):
        store.snapshot(host, days)
    store.record(host)
    assert cut_off.in_child(seal_all) == cut_off.DONE
    assert all(map(is_sealed, store.snapshots_of(host)))


def seal_all() -> None:
    with opening.opened_store(writes=True) as store:
        repair.look_after_seals(store)


def test_remove(store: FleetStore) -> None:
    make_client(store, "beside")
    step = 0
    is_there = False
    for step in count():
        if not is_there:
            make_client(store, HOST)
        status = cut_off.run_until(step, partial(removal.remove, client=HOST))
        if status == cut_off.DONE:
            break
        assert status == cut_off.KILLED
        begun = change.PATH.exists()
        assert (cut_off.tick if step % 2 else cut_off.go_on)() == cut_off.DONE
        assert not change.PATH.exists()
        is_there = not begun and (store.root / HOST).exists()
        if is_there:
            assert all(map(is_sealed, store.snapshots_of(HOST)))
            assert len(store.snapshots_of(HOST)) == 2
            assert store.keys_of(HOST) == 1
        else:
            assert store.traces_of(HOST) == [], step
    assert step > 20
    assert store.traces_of(HOST) == []
    assert all(map(is_sealed, store.snapshots_of("beside")))
    assert store.keys_of("beside") == 1


def test_rename(store: FleetStore) -> None:
    make_client(store, "beside")
    names = ["a", "b.example"]
    make_client(store, names[0])
    rows = store.rows_of(names[0])
    step = 0
    for step in count():
        old, new = names
        action = partial(renaming.rename, old=old, new=new)
        status = cut_off.run_until(step, action)
        if status != cut_off.DONE:
            assert status == cut_off.KILLED
            assert (cut_off.tick if step % 2 else cut_off.go_on)() == cut_off.DONE
        # It has one of the two names, whole, and there is no trace of the other one.
        if (store.root / new).exists():
            names.reverse()
        here, gone = names
        assert store.traces_of(gone) == [], step
        assert all(map(is_sealed, store.snapshots_of(here)))
        assert len(store.snapshots_of(here)) == 2
        assert (store.keys_of(here), store.rows_of(here)) == (1, rows)
        notes_ = store.root / ".byteback" / "hosts"
        assert (notes_ / f"{here}.machine").read_text() == ".machine of a"
        if status == cut_off.DONE:
            break
    assert step > 20
    assert all(map(is_sealed, store.snapshots_of("beside")))
    assert store.keys_of("beside") == 1
