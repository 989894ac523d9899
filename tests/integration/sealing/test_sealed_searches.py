"""Searches, and a lost or discarded current, where snapshots are sealed."""

from __future__ import annotations

import itertools
import os
import random
from datetime import UTC, datetime

import pytest

from byteback.model import listing
from byteback.model.glob import pattern
from byteback.model.listing import Entry
from byteback.server.search import run
from byteback.server.snapshots import lineage
from byteback.server.store.layout import Store
from tests.integration import test_search
from tests.integration.programs import run_program
from tests.integration.sealing.store import (
    CONTENT,
    HOST,
    SealedStore,
    is_sealed,
    mark_of,
    mode_of,
)


@pytest.mark.parametrize("seed", range(2))
def test_searches_find_the_same_and_as_fast(store: SealedStore, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 # dice, no secret
    host = test_search.HOST
    directory = store.client(host)
    current = directory / "current"
    for day in range(1, 13):
        for _ in range(chance.choice([0, 2, 30])):
            test_search.change(current, chance)
        # So that but for its ctime the top might be the same in all of them.
        os.utime(current, (0, 0))
        path = directory / f"2026-01-{day:02}T00:00+0000"
        store.as_user("btrfs", "subvolume", "snapshot", "-r", current, path)
    place = Store(store.root)
    names = place.trees(host)
    chains = lineage.chains_of(lineage.read_trees(directory, names))
    answers = searched(place, names, chains)
    assert store.tick().status == 0
    assert lineage.chains_of(lineage.read_trees(directory, names)) == chains
    assert len(chains[0]) == 13
    tops = {(directory / name).stat().st_ctime_ns for name in names}
    assert len(tops) == 13, "by their ctimes a search tells them apart"
    assert searched(place, names, chains) == answers


def searched(
    place: Store, names: list[str], chains: lineage.Chains
) -> dict[str, list[Entry]]:
    """The names that are found, which are also those that are there."""
    trees = listing.rank_trees(names, current_is_whole=True, now=datetime.now(UTC))
    answers = {}
    for texts, scope in itertools.product(test_search.PATTERNS, test_search.SCOPES):
        found = run.find(
            *(place, test_search.HOST, "*", scope, texts),
            current_is_whole=True,
            chains=chains,
        )
        compiled = pattern.compile_patterns(texts)
        answer = list(found)
        assert answer == test_search.naive(place, trees, compiled, scope)
        answers[f"{scope} {texts}"] = answer
    return answers


def test_a_lost_current_is_made_by_root(store: SealedStore) -> None:
    made = store.sealed(HOST, 0, 10)
    current = made[0].parent / "current"
    mode = current.stat().st_mode
    run_program(["btrfs", "subvolume", "delete", current])
    key = "AAAAC3NzaC1lZDI1NTE5AAAAIJ1J7Ln0zqk4yN1sPwy0Qh6D2E8yqz0wYzR2l4nV8m3T"
    keys = store.root / ".ssh" / "authorized_keys"
    keys.write_text(f'restrict,command="byteback-receive --host a" ssh-ed25519 {key}\n')
    keys.chmod(0o600)
    os.chown(keys, store.user.uid, store.user.gid)
    push = "rsync --fake-super --server -logDtpre.iLsfxCIvu --numeric-ids . ."
    become_user = store.as_user_words
    environment = [f"SSH_ORIGINAL_COMMAND={push}", "SSH_CONNECTION=127.0.0.1 1 ::1 2"]
    receive = store.program.with_name("byteback-receive")
    session = [*become_user, *environment, receive, "--host", HOST]
    refused = run_program(session, check=False)
    assert refused.status == 75
    assert "try again" in refused.stderr
    assert store.prune("--prune", as_root=False).status == 0
    assert not current.exists()
    assert "made it again" in store.tick().stderr
    assert current.stat().st_uid == store.user.uid
    assert current.stat().st_mode == mode
    assert mark_of(current) is None
    store.as_user("touch", current / "written")
    assert is_sealed(made[0])
    # And a snapshot of it can be taken, and sealed.
    again = store.snapshot(HOST, 3)
    store.tick()
    assert is_sealed(again)
    assert mode_of(again) == lineage.UNTOUCHED_MODE


def test_discarding_a_sealed_hosts_backup(store: SealedStore) -> None:
    made = store.sealed(HOST, 0, 10)
    current = made[0].parent / "current"
    mode = current.stat().st_mode
    (current / "evil").touch()
    refused = store.prune("--discard", HOST, as_root=False)
    assert refused.status == 1
    assert "sealed" in refused.stderr
    assert (current / "evil").exists()
    assert store.prune("--discard", HOST).status == 0
    assert not (current / "evil").exists()
    assert (current / "etc" / "file").read_bytes() == CONTENT
    assert current.stat().st_uid == store.user.uid
    assert current.stat().st_mode == mode
    assert mark_of(current) is None
    assert not current.with_name(".byteback-discarded").exists()
    assert all(map(is_sealed, made))
