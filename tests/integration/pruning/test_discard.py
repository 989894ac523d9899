"""--discard and a tick leave a good current, whatever happens meanwhile."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from byteback.model.snapshot import format_snapshot_name
from tests.integration.programs import run_program
from tests.integration.pruning.store import (
    FULL,
    MIB,
    PruneStore,
    as_root_or_user,
    stand_in,
    wait_for_orphans,
)


def with_grown_current(store: PruneStore) -> tuple[Path, Path]:
    """A host whose ``current`` holds 100 MiB more than its snapshot: both."""
    current = store.client("a") / "current"
    (current / "kept").write_bytes(b"kept")
    os.chown(current / "kept", store.user.uid, store.user.gid)
    name = format_snapshot_name(datetime.now(UTC) - timedelta(days=1))
    snapshot = current.parent / name
    store.as_user("btrfs", "subvolume", "snapshot", "-r", current, snapshot)
    (current / "grown").write_bytes(os.urandom(100 * MIB))
    store.commit()
    return current, snapshot


@as_root_or_user
def test_discard_puts_current_back_and_returns_its_space(
    store: PruneStore, as_root: bool
) -> None:
    current, snapshot = with_grown_current(store)
    before = store.free_percent()
    outcome = store.prune("--discard", "a", as_root=as_root)
    assert outcome.status == 0
    assert f"back at {snapshot.name}" in outcome.stdout
    assert sorted(p.name for p in current.iterdir()) == ["kept"]
    assert store.free_percent() > before + 9
    assert sorted(p.name for p in current.parent.iterdir()) == [
        snapshot.name,
        "current",
    ]
    store.as_user("touch", current / "writable")
    assert current.stat().st_uid == store.user.uid


def test_discard_without_a_snapshot_leaves_nothing(store: PruneStore) -> None:
    current = store.client("a") / "current"
    (current / "grown").write_bytes(b"x")
    assert store.prune("--discard", "a").status == 0
    assert list(current.iterdir()) == []
    store.as_user("touch", current / "writable")


@pytest.mark.parametrize("option", ["--discard", "--approve"])
def test_unknown_hosts_are_no_clients(store: PruneStore, option: str) -> None:
    store.as_user("mkdir", store.root / "noclient")
    for host in ("noclient", "missing", "..", "a/b"):
        assert store.prune(option, host).status in {2, 10}
    assert (store.root / "noclient").is_dir()


@pytest.mark.parametrize("first_try", ["old", "new"])
@pytest.mark.parametrize(
    "moment",
    ["*'subvolume snapshot'*", "*'filesystem sync'*", "*'subvolume delete'*"],
)
def test_a_discard_killed_at_any_step_leaves_a_whole_current(
    store: PruneStore, btrfs_stand_in: Path, moment: str, first_try: str
) -> None:
    current, snapshot = with_grown_current(store)
    # Killed before the step, or with the step done all the same.
    kill = "kill -KILL $PPID"
    stand_in(btrfs_stand_in, moment, f"{kill}; exit 1" if first_try == "old" else kill)
    assert store.prune("--discard", "a").status == -9
    wait_for_orphans()
    btrfs_stand_in.unlink()
    assert (current / "kept").read_bytes() == b"kept"
    store.as_user("touch", current / "writable")
    assert store.prune("--prune").status == 0
    names = sorted(p.name for p in current.parent.iterdir())
    assert names == [snapshot.name, "current"]
    assert store.prune("--discard", "a").status == 0
    assert sorted(p.name for p in current.iterdir()) == ["kept"]


def test_a_tick_closes_writable_snapshots_and_makes_a_lost_current(
    store: PruneStore,
) -> None:
    made = store.history("a", 1, 3)
    store.as_user("btrfs", "property", "set", "-t", "subvol", made[1], "ro", "false")
    outcome = store.prune("--prune", "--verbose")
    assert "set a/" in outcome.stderr
    with pytest.raises(OSError, match="Read-only"):
        (made[1] / "file").touch()
    key = "AAAAC3NzaC1lZDI1NTE5AAAAIJ1J7Ln0zqk4yN1sPwy0Qh6D2E8yqz0wYzR2l4nV8m3T"
    keys = store.root / ".ssh" / "authorized_keys"
    store.as_user("btrfs", "subvolume", "delete", store.root / "a" / "current")
    assert store.prune("--prune").status == 0
    assert not (store.root / "a" / "current").exists()  # retired, for all we know
    keys.write_text(
        f'restrict,command="/usr/bin/byteback-receive --host a" ssh-ed25519 {key}\n'
    )
    os.chown(keys, store.user.uid, store.user.gid)
    assert "had lost its current" in store.prune("--prune", "--verbose").stderr
    store.as_user("touch", store.root / "a" / "current" / "writable")


def test_root_follows_no_link_that_the_user_puts_in_its_way(
    store: PruneStore, btrfs_stand_in: Path, tmp_path: Path
) -> None:
    made = store.history("a", 0, 10)
    roots = store.root / "roots"
    run_program(["btrfs", "subvolume", "create", roots])
    inner = roots / made[1].name
    run_program(["btrfs", "subvolume", "create", inner])
    # Exchanged between the last look and the deletion.
    aside = store.root / "aside"
    swap = f"mv {store.root / 'a'} {aside}; ln -s {roots} {store.root / 'a'}"
    stand_in(btrfs_stand_in, "*rootid*", swap)
    store.prune(*FULL)
    assert inner.exists()
    assert not (aside / made[1].name).exists()  # it was that one which was looked at
