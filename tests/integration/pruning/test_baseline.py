"""A store without a record: what its hosts usually send is read off their snapshots."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from byteback.model.snapshot import format_snapshot_name
from tests.integration.conftest import CONFIGURATION, INTERPRETER, LIBRARY
from tests.integration.programs import Outcome, run_program
from tests.integration.pruning.store import (
    MIB,
    PruneStore,
    as_root_or_user,
    limits_above,
)

PUSH = """
import sys
sys.path.insert(0, {library!r})
from byteback.model.growth import Taken
from byteback.server.accounting import ledger
from byteback.server.store.layout import own_store
number = ledger.begin_transfer(own_store(), {host!r}, "", "push")
ledger.note_taken(own_store(), number, Taken({taken}, 0))
"""


@pytest.fixture
def settings() -> Iterator[Path]:
    CONFIGURATION.mkdir(mode=0o755, exist_ok=True)
    path = CONFIGURATION / "server.toml"
    yield path
    path.unlink(missing_ok=True)


def record_push(store: PruneStore, host: str, megabytes: float) -> None:
    """The entries of a host's session in a ledger that knew nothing before."""
    taken = int(megabytes * MIB)
    text = PUSH.format(library=str(LIBRARY), host=host, taken=taken)
    run_program([*store.as_user_words, INTERPRETER, "-c", text])


def daily_history(store: PruneStore, host: str, megabytes: int) -> None:
    """A snapshot a day until yesterday, each of which took so much."""
    store.history(host, 5, 4, 3, 2, 1, megabytes=megabytes)


def prune(store: PruneStore, *, as_root: bool = True) -> Outcome:
    """A run that is short of room by less than 20 MiB."""
    limits = limits_above(store.free_percent(), 1.5)
    return store.prune("--prune", "--verbose", *limits, as_root=as_root)


def baseline(store: PruneStore, host: str) -> tuple[int | None, int | None] | None:
    path = store.root / ".byteback" / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as ledger:
        query = "SELECT data_taken, metadata_taken FROM baseline WHERE host = ?"
        found: tuple[int | None, int | None] | None
        found = ledger.execute(query, (host,)).fetchone()
        return found


@pytest.mark.parametrize(("megabytes", "is_usual"), [(39, True), (42, False)])
def test_a_push_is_judged_by_what_snapshots_show(
    store: PruneStore, megabytes: int, is_usual: bool
) -> None:
    daily_history(store, "a", 20)
    others = store.history("b", 0, 10, 20, megabytes=20)
    record_push(store, "a", megabytes)
    outcome = prune(store)
    assert outcome.status == 0
    assert [path.exists() for path in others] == [True, True, not is_usual]
    assert ("suddenly larger" in outcome.stderr) is not is_usual
    found = baseline(store, "a")
    assert found is not None
    assert found[0] == 20 * MIB


@as_root_or_user
def test_nobodys_history_goes_for_a_large_push_that_nothing_can_judge(
    store: PruneStore, as_root: bool
) -> None:
    """One snapshot shows no step, and one percent of the store are 10 MiB."""
    store.history("a", 1, megabytes=20)
    others = store.history("b", 0, 10, 20, megabytes=20)
    record_push(store, "a", 60)
    assert "host 'a' has taken 60" in prune(store, as_root=as_root).stderr
    assert all(path.exists() for path in others)
    assert "for a backup that is suddenly different" in (store.no_room() or "")
    assert store.prune("--approve", "a").status == 0
    assert prune(store, as_root=as_root).status == 0
    assert [path.exists() for path in others] == [True, True, False]


def test_rubbish_from_before_the_record_costs_nobody_history(store: PruneStore) -> None:
    """The state after a transfer that went on while the server was upgraded."""
    daily_history(store, "a", 5)
    others = store.history("b", 0, 10, 20, megabytes=20)
    rubbish = store.root / "a" / "current" / "rubbish"
    rubbish.write_bytes(os.urandom(100 * MIB))
    os.chown(rubbish, store.user.uid, store.user.gid)
    store.commit()
    assert "host 'a' has taken 100" in prune(store).stderr
    assert all(path.exists() for path in others)
    assert store.prune("--discard", "a").status == 0
    assert not rubbish.exists()
    assert "has taken" not in prune(store).stderr
    assert [path.exists() for path in others] == [True, True, False]


def test_snapshots_of_after_the_first_push_are_no_measure(store: PruneStore) -> None:
    daily_history(store, "a", 5)
    others = store.history("b", 0, 10, 20, megabytes=20)
    record_push(store, "a", 100)
    store.snapshot("a", 0, megabytes=100)
    store.commit()
    assert "host 'a' has taken 100" in prune(store).stderr
    assert all(path.exists() for path in others)


def test_holes_and_what_compresses_well_are_no_measure(store: PruneStore) -> None:
    """A client could else have given itself any measure, for nothing."""
    directory = store.client("a")
    for days in (3, 2, 1):
        (directory / "current" / f"zeros-{days}").write_bytes(bytes(100 * MIB))
        (directory / "current" / f"hole-{days}").touch()
        os.truncate(directory / "current" / f"hole-{days}", 1 << 40)
        moment = datetime.now(UTC) - timedelta(days=days)
        name = format_snapshot_name(moment)
        words = ("btrfs", "subvolume", "snapshot", "-r")
        store.as_user(*words, directory / "current", directory / name)
    record_push(store, "a", 30)
    assert "host 'a' has taken 30" in prune(store).stderr


def test_a_measure_is_there_before_it_is_needed(store: PruneStore) -> None:
    """And is looked for no more once it is there, nor where there is no need."""
    daily_history(store, "a", 20)
    store.client("new")
    first = store.prune("--prune", "--verbose")
    assert first.stderr.count("a backup of a usually takes up to 20") == 1
    assert baseline(store, "new") == (None, None)
    assert "usually takes" not in store.prune("--prune", "--verbose").stderr


def test_where_root_seals_the_user_leaves_measuring_to_it(
    store: PruneStore, settings: Path
) -> None:
    settings.write_text("sealed = true\n")
    daily_history(store, "a", 20)
    others = store.history("b", 0, 10, 20, megabytes=20)
    record_push(store, "a", 39)
    outcome = prune(store, as_root=False)
    assert "it is not known yet how much its backups usually take" in outcome.stderr
    assert baseline(store, "a") is None
    assert all(path.exists() for path in others)
    assert prune(store).status == 0
    assert [path.exists() for path in others] == [True, True, False]
