"""A client can be removed when there is no room left on the disc for anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from byteback.server.store import change
from tests.integration.fleet.store import FleetStore
from tests.integration.pruning.store import MIB, fill_with_names
from tests.integration.pruning.test_full_disc import fill_with_data
from tests.integration.sealing.store import become


@pytest.fixture
def volume_size() -> int:
    """Quick to fill."""
    return 200 << 20


def make_clients(store: FleetStore) -> None:
    for host in ("www", "other"):
        store.enrol(host)
        store.snapshot(host, 20)
        store.record(host)
    assert store.tick().status == 0  # seals, and makes the reserve


@pytest.mark.parametrize("fill", [fill_with_data, fill_with_names])
def test_the_client_that_filled_it(
    store: FleetStore, fill: Callable[[Path], None]
) -> None:
    make_clients(store)
    with become(store.user):
        fill(store.root / "www" / "current")
    store.commit()
    store.clients("remove", "--yes", "www")
    assert store.traces_of("www") == []
    assert len(store.snapshots_of("other")) == 1
    assert store.session("other").status == 0


def test_another_one_goes_when_there_is_room(store: FleetStore) -> None:
    """authorized_keys cannot be changed, but the key opens nothing meanwhile."""
    make_clients(store)
    with become(store.user):
        fill_with_data(store.root / "other" / "current")
    store.commit()
    told = store.clients("remove", "--yes", "www", status=75)
    assert "the next run of pruning goes on when there is room" in told.stderr
    assert store.snapshots_of("www") == []
    assert store.session("www").status == 75
    for path in (store.root / "other" / "current").glob("fill-*"):
        path.unlink()
    store.commit()
    assert store.tick().status == 0
    assert store.traces_of("www") == []
    assert store.session("other").status == 0


def test_nothing_is_renamed_there(store: FleetStore) -> None:
    make_clients(store)
    with become(store.user):
        fill_with_data(store.root / "other" / "current")
    store.commit()
    told = store.clients("rename", "www", "new", status=75)
    assert "nothing was renamed" in told.stderr
    assert not (store.root / "new").exists()
    assert not change.PATH.exists()
    assert store.session("www").status == 0


def test_who_filled_it_is_refused(store: FleetStore) -> None:
    """Its key cannot be taken out of the file, and opens nothing all the same."""
    make_clients(store)
    with become(store.user):
        fill_with_data(store.root / "www" / "current")
    store.commit()
    assert store.session("www").status == 0
    told = store.clients("key", "--revoke", "www", status=75)
    assert "it opens nothing" in told.stderr
    assert store.session("www").status == 9
    assert store.session("other").status == 0
    with become(store.user):
        (store.root / "www" / "current" / f"fill-{MIB}").unlink()
    store.commit()
    store.clients("key", "--revoke", "www")
    assert store.keys_of("www") == 0
