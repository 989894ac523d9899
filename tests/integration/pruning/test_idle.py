"""A run of pruning that finds nothing changed costs little and misses nothing (D57)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from byteback.system import files
from byteback.system.btrfs import subvolume
from tests.integration.conftest import CONFIGURATION, INTERPRETER, LIBRARY
from tests.integration.counting import traced
from tests.integration.programs import Outcome, require_program, run_program
from tests.integration.pruning.store import FULL, PruneStore
from tests.integration.sealing.store import become, mark_of

pytestmark = pytest.mark.integration

LOOKED = Path("/var/lib/byteback/looked")
FEW, MANY = 3, 30  # snapshots
# The real program, for which nothing counts as young.
PROGRAM = (
    f"import sys; sys.path.insert(0, {str(LIBRARY)!r}); "
    "from byteback.server.prune import looked; looked.YOUNG_S = -1.0; "
    "from byteback.cli import prune; prune.main()"
)
WORDS = [INTERPRETER, "-c", PROGRAM]
MAX_CALLS_EACH = 8  # of the system, for each client: 4 were counted


def tick(store: PruneStore, *options: str) -> Outcome:
    """A run as root, by default one that finds enough space."""
    return run_program([*WORDS, *(options or ("--prune", "--verbose"))], check=False)


def settle(store: PruneStore) -> None:
    """Run until nothing is left to do."""
    for _ in range(2):
        assert tick(store).status == 0
    assert LOOKED.exists()


def calls(options: Sequence[str] = ("--prune",)) -> int:
    require_program("strace")
    with traced([*WORDS, *options]) as (argv, trace):
        run_program(argv)
    return sum(len(called) for name, called in trace.processes if "python" in name)


def test_an_idle_run_does_not_look_at_snapshots(store: PruneStore) -> None:
    """Its system calls are as many for ten times the snapshots."""
    store.history("a", *range(10, 10 + FEW))
    settle(store)
    few = calls()
    for days in range(10 + FEW, 10 + MANY):
        store.snapshot("a", days)
    settle(store)
    assert abs(calls() - few) < MANY - FEW
    for number in range(5):
        store.history(f"b{number}", 10, 11)
    settle(store)
    assert calls() - few < 5 * MAX_CALLS_EACH + MANY - FEW


def test_an_idle_run_is_a_run(store: PruneStore) -> None:
    """byteback-status goes by the time of the last one that came to its end."""
    store.history("a", 10)
    settle(store)
    mark = store.root / ".byteback" / "pruned"
    os.utime(mark, (0, 0))
    assert tick(store).status == 0
    assert mark.stat().st_mtime > 0


def test_a_new_snapshot_and_a_renamed_one_are_found(store: PruneStore) -> None:
    CONFIGURATION.mkdir(exist_ok=True)
    settings = CONFIGURATION / "server.toml"
    settings.write_text("sealed = true\n")
    try:
        old, other = store.history("a", 10, 12)
        settle(store)
        assert has_its_name(old)
        assert has_its_name(other)
        new = store.snapshot("a", 9)
        tick(store)
        assert has_its_name(new)
        settle(store)
        store.as_user("mv", old, old.with_name("1999-01-01T00:00+0000"))
        tick(store)
        assert has_its_name(old)
        settle(store)
        with become(store.user):
            files.exchange(old, other)
        assert not has_its_name(old)
        tick(store)
        assert has_its_name(old)
        assert has_its_name(other)
    finally:
        settings.unlink()


def has_its_name(path: Path) -> bool:
    """Sealed, under the name that it has."""
    return mark_of(path) == f"{path.parent.name}/{path.name}"


def test_before_a_deletion_everything_is_looked_at(store: PruneStore) -> None:
    """The directory around it does not tell that a killed run left one writable."""
    made = store.history("a", 10, 20, 30)
    settle(store)
    store.as_user("btrfs", "property", "set", "-t", "subvol", made[0], "ro", "false")
    assert tick(store).status == 0
    assert is_writable(made[0]), "an idle run trusts its memory for an hour"
    tick(store, *FULL)
    assert not is_writable(made[0])
    assert not LOOKED.exists()
    assert not made[2].exists()


def is_writable(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY)
    try:
        return not subvolume.is_read_only(fd)
    finally:
        os.close(fd)
