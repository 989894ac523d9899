"""Looking at few hosts of a ledger finds what judging all of them would."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from byteback.model.free_space import FreeSpace
from byteback.server.accounting import growth, ledger, ledger_file
from byteback.server.store import settings
from byteback.server.store.layout import Store
from byteback.server.store.settings import ServerSettings

DAY = 86400.0
TOTAL = 1_000_000  # bytes: one percent of it may be larger
FREE = FreeSpace(TOTAL // 2, TOTAL)


def fill(store: Store, host: str, dice: random.Random) -> None:
    """A host with some habit, and one or the other backup that is out of it."""
    (store.root / host / "current").mkdir(parents=True)
    day = dice.choice([1, 1, 7])
    usual = dice.choice([10, 3_000, 9_000, 30_000])
    names = dice.choice([50, 1_000])
    with ledger_file.opened(store) as opened:
        for ago in range(dice.randrange(3, 120), -1, -day):
            started = time.time() - ago * DAY - 60
            for push in range(dice.choice([1, 1, 1, 4])):
                odd = dice.random() < 0.03
                opened.execute(
                    "INSERT INTO transfer (host, address, kind, started, ended, result,"
                    " data_taken, metadata_taken, names, stopped)"
                    " VALUES (?, '', 'push', ?, ?, 'whole', ?, 0, ?, ?)",
                    (
                        host,
                        started + push,
                        started + push + 0.5,
                        usual * (dice.choice([3, 20]) if odd else 1),
                        names // (3 if odd and dice.random() < 0.5 else 1),
                        odd and dice.random() < 0.2,
                    ),
                )
            if dice.random() < 0.8:  # else the next pushes are of the same backup
                opened.execute(
                    "INSERT INTO snapshot (host, name, made, incomplete)"
                    " VALUES (?, 'x', ?, 0)",
                    (host, started + 10),
                )
        if dice.random() < 0.2:
            opened.execute(
                "INSERT INTO approval (host, time) VALUES (?, ?)",
                (host, time.time() - dice.random() * 40 * DAY),
            )


@pytest.mark.parametrize("seed", range(8))
def test_no_host_that_stands_out_is_passed_over(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)  # noqa: S311 # no secret
    store = Store(tmp_path)
    (store.state / "hosts").mkdir(parents=True)
    for number in range(40):
        fill(store, f"h{number}", dice)
    now = time.time()
    exhaustive = {
        host: verdict
        for host, record in ledger.host_records(store).items()
        if (verdict := growth.judge_host(store, host, record, FREE, now)).blamed_since
        is not None
        or verdict.shrinkage is not None
    }
    assert growth.verdicts(store, FREE, now) == exhaustive
    assert exhaustive


def test_quiet_hosts_are_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    (store.state / "hosts").mkdir(parents=True)
    with ledger_file.opened(store) as opened:
        for host, taken in (("quiet", 100), ("loud", 20_000)):
            opened.execute(
                "INSERT INTO transfer (host, address, kind, started, data_taken)"
                " VALUES (?, '', 'push', ?, ?)",
                (host, time.time() - 100, taken),
            )
    now = time.time()
    assert growth.suspects(store, FREE, now) == ["loud"]
    # One host's own setting may be stricter than all others.
    strict = ServerSettings(growth_percent=0.005)
    monkeypatch.setattr(
        settings, "load_all", lambda hosts: {h: strict for h in hosts if h == "quiet"}
    )
    assert sorted(growth.suspects(store, FREE, now)) == ["loud", "quiet"]
