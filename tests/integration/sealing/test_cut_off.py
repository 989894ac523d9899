"""Sealing that is killed, that fails, or that finds no space."""

from __future__ import annotations

import os
import signal

import pytest

from byteback.server.snapshots import lineage
from byteback.system.btrfs import subvolume
from tests.integration.conftest import INTERPRETER, LIBRARY
from tests.integration.programs import Outcome, run_program
from tests.integration.pruning.store import fill_with_names, long_name
from tests.integration.sealing.store import (
    HOST,
    STAT,
    SealedStore,
    become,
    is_sealed,
    mode_of,
    opened,
)

STEPS = {
    "thaw": "subvolume.thaw",
    "note": "os.setxattr",
    "owner": "os.fchown",
    "mode": "os.fchmod",
    "mark": "os.setxattr",
    "freeze": "subvolume.freeze",
}
KILLED = """
import os, sys, signal
sys.path.insert(0, {library!r})
from byteback.server.prune import run as prune
from byteback.server.store import opening
from byteback.system.btrfs import subvolume
from byteback.model.free_space import Limits
skip = {skip}
def killing(real):
    def call(*words):
        global skip
        if skip:
            skip -= 1
            return real(*words)
        if {after}:
            real(*words)
        os.kill(os.getpid(), signal.SIGKILL) if {kill} else fail()
    return call
def fail():
    raise OSError(28, "No space left on device")
holder, name = {target!r}.split(".")
holder = {{"os": os, "subvolume": subvolume}}[holder]
setattr(holder, name, killing(getattr(holder, name)))
with opening.opened_store() as store:
    prune.Pruner(store).prune(Limits(1, 2))
"""


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "failed"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", list(STEPS))
def test_cut_off_at_any_step_the_next_run_finishes(
    store: SealedStore, step: str, after: bool, kill: bool
) -> None:
    store.client(HOST)
    made = store.snapshot(HOST, 1)
    assert store.prune("--prune", as_root=False).status == 0  # makes the reserve
    skip = int(step in {"mark", "freeze"})
    text = KILLED.format(
        library=str(LIBRARY), target=STEPS[step], skip=skip, after=after, kill=kill
    )
    outcome = run_program([INTERPRETER, "-c", text], check=False)
    assert outcome.status == (-signal.SIGKILL if kill else 0), outcome
    done = is_sealed(made)
    assert done == (step == "freeze" and after) or not kill
    assert store.tick().status == 0
    assert is_sealed(made)
    note = os.getxattr(made, STAT).decode()
    assert note.endswith(f" 0,0 {store.user.uid}:{store.user.gid}")
    with opened(made) as fd:
        found = subvolume.read(fd)
    assert found is not None
    if step == "thaw" or (step == "note" and not after):
        assert mode_of(made) == lineage.UNTOUCHED_MODE
    assert store.prune("--prune") == Outcome(0, "", "")


@pytest.mark.parametrize("volume_size", [400 << 20])
def test_a_full_disc_heals_and_what_is_new_is_sealed_then(store: SealedStore) -> None:
    directory = store.client(HOST)
    current = directory / "current"
    with become(store.user):
        for number in range(2400):
            (current / long_name(number)).touch()
    old = store.snapshot(HOST, 20)
    with become(store.user):
        for number in range(2400):
            (current / long_name(number)).unlink()
    store.snapshot(HOST, 10)
    store.tick()
    newest = store.snapshot(HOST, 0)
    with become(store.user):
        fill_with_names(current)
    store.commit()
    assert store.prune("--prune").status == 0
    assert not old.exists()
    (current / "afterwards").touch()
    store.tick()
    assert is_sealed(newest)
