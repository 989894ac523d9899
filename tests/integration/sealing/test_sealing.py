"""Sealing what runs of root's find, and honest use of what is sealed."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from byteback.model.snapshot import format_snapshot_name
from byteback.server.snapshots import lineage, seal
from byteback.system.btrfs import subvolume
from tests.integration.conftest import CHECKOUT
from tests.integration.programs import Outcome, processor_seconds, run_program
from tests.integration.pruning.store import FULL
from tests.integration.sealing.store import (
    CONTENT,
    HOST,
    OTHER,
    STAT,
    SealedStore,
    become,
    is_sealed,
    mark_of,
    mode_of,
    opened,
)


def test_a_run_of_roots_seals_what_it_finds(store: SealedStore) -> None:
    store.client(HOST)
    made = [store.snapshot(HOST, 9), store.snapshot(HOST, 1)]
    (store.root / HOST / "current" / "later").touch()
    before = made[0].stat()
    outcome = store.tick()
    assert outcome.stderr.count("sealed a/") == 2
    for path in made:
        assert is_sealed(path)
        assert mode_of(path) == lineage.UNTOUCHED_MODE
        assert path.stat().st_gid == store.user.gid
        note = os.getxattr(path, STAT).decode()
        uid, gid = store.user.uid, store.user.gid
        assert note == f"{before.st_mode:o} 0,0 {uid}:{gid}"
        assert path.stat().st_mtime_ns
    assert made[0].stat().st_mtime_ns == before.st_mtime_ns
    assert mark_of(store.root / HOST / "current") is None
    assert (store.root / HOST / "current").stat().st_uid == store.user.uid
    assert store.as_user("cat", made[0] / "etc" / "file").stdout == CONTENT.decode()


def test_what_the_client_noted_stays(store: SealedStore) -> None:
    current = store.client(HOST) / "current"
    with become(store.user):
        os.setxattr(current, STAT, b"41755 0,0 0:0")
        current.chmod(0o777)
    made = store.snapshot(HOST, 1)
    store.tick()
    assert is_sealed(made)
    assert os.getxattr(made, STAT) == b"41755 0,0 0:0"


def test_a_mark_of_somebody_elses_is_none(store: SealedStore) -> None:
    """A client's rsync, or the user, may give ``current`` any attribute."""
    current = store.client(HOST) / "current"
    with become(store.user):
        os.setxattr(current, seal.ATTRIBUTE, b"a/1999-01-01T00:00+0000")
    made = [store.snapshot(HOST, 10), store.snapshot(HOST, 0)]
    outcome = store.tick()
    assert "renamed" not in outcome.stderr
    assert all(map(is_sealed, made))
    assert store.prune(*FULL).status == 0
    assert [path.exists() for path in made] == [False, True]


def test_a_tick_with_all_sealed_writes_nothing(store: SealedStore) -> None:
    store.sealed(HOST, 0, 1, 10, 20)
    store.commit()
    before = store.generation()
    assert store.prune("--prune") == Outcome(0, "", "")
    store.commit()
    assert store.generation() == before


def test_what_somebody_wrote_to_does_not_pass_for_untouched(store: SealedStore) -> None:
    store.client(HOST)
    made = store.snapshot(HOST, 1)
    with opened(made) as fd:
        subvolume.thaw(fd)
        (made / "added").touch()
        subvolume.freeze(fd)
    store.tick()
    assert is_sealed(made)
    assert mode_of(made) & 0o777 != lineage.UNTOUCHED_MODE
    assert mode_of(made) & 0o022 == 0


def test_a_writable_and_an_old_root_owned_one_are_sealed(store: SealedStore) -> None:
    directory = store.client(HOST)
    writable = directory / "2020-01-01T00:00+0000"
    roots = directory / "2020-01-02T00:00+0000"
    current = directory / "current"
    store.as_user("btrfs", "subvolume", "snapshot", current, writable)
    run_program(["btrfs", "subvolume", "snapshot", current, roots])
    os.chown(roots, 0, 0)
    store.tick()
    assert is_sealed(writable)
    assert is_sealed(roots)


@pytest.mark.parametrize("text", ["", "sealed = false\n"])
def test_without_the_setting_nothing_new_is_sealed(
    store: SealedStore, text: str
) -> None:
    old = store.sealed(HOST, 30, 20)
    store.settings(text)
    new = store.snapshot(HOST, 10)
    newest = store.snapshot(HOST, 0)
    store.tick()
    assert [mark_of(path) for path in (new, newest)] == [None, None]
    assert all(map(is_sealed, old)), "and what is sealed stays so"
    assert store.prune(*FULL).status == 0
    assert [path.exists() for path in (*old, new, newest)] == [False] * 3 + [True]


def test_the_users_own_run_seals_nothing(store: SealedStore) -> None:
    store.client(HOST)
    made = store.snapshot(HOST, 1)
    assert store.prune("--prune", as_root=False).status == 0
    assert mark_of(made) is None
    assert made.stat().st_uid == store.user.uid


def test_the_services_rights_are_enough(store: SealedStore) -> None:
    """The capabilities that the package's unit leaves root."""
    unit = CHECKOUT / "debian" / "byteback-server.byteback-prune.service"
    lines = [line.partition("=") for line in unit.read_text().splitlines()]
    rights = " ".join(v for k, _, v in lines if k == "CapabilityBoundingSet").split()

    def service(*options: str) -> Outcome:
        bound = ",".join(["-all", *(f"+{name[4:].lower()}" for name in rights)])
        setpriv = ["setpriv", "--no-new-privs", f"--bounding-set={bound}"]
        return run_program([*setpriv, store.program, *options])

    store.client(HOST)
    with become(store.user):
        (store.root / HOST / "current").chmod(0o700)
    made = [store.snapshot(HOST, 10), store.snapshot(HOST, 0)]
    assert service("--prune") == Outcome(0, "", "")
    assert all(map(is_sealed, made))
    made[1].rename(made[1].with_name("2031-01-01T00:00+0000"))
    service("--prune")
    assert all(map(is_sealed, made))
    service("--discard", HOST)
    service(*FULL)
    assert [path.exists() for path in made] == [False, True]
    rights.remove("CAP_CHOWN")
    one_more = store.snapshot(HOST, 5)
    assert "needs CAP_CHOWN" in service("--prune", "--verbose").stderr
    with opened(one_more) as fd:
        assert subvolume.is_read_only(fd)


def test_an_administrators_own_name_is_kept(store: SealedStore) -> None:
    made = store.sealed(HOST, 0, 20)
    saved = made[1].rename(made[1].with_name("saved-do-not-delete"))
    assert "renamed" not in store.tick().stderr
    assert store.prune(*FULL).status == 0
    assert saved.exists()
    saved.rename(made[1])
    assert is_sealed(made[1])


def test_one_is_unsealed_by_hand(store: SealedStore) -> None:
    """By what byteback-prune(1) says."""
    made = store.sealed(HOST, 0, 20)
    store.settings("sealed = false\n")
    run_program(["btrfs", "property", "set", made[1], "ro", "false"])
    run_program(["chown", "byteback:", made[1]])
    run_program(["chmod", "u+w", made[1]])
    run_program(["btrfs", "property", "set", made[1], "ro", "true"])
    store.tick()
    assert store.prune("--prune-force", as_root=False).status == 0
    assert [path.exists() for path in made] == [True, False]


def test_the_user_leaves_sealed_ones_to_root(store: SealedStore) -> None:
    made = store.sealed(HOST, 0, *range(10, 20))
    store.client(OTHER)
    own = [store.snapshot(OTHER, 10), store.snapshot(OTHER, 0)]
    outcome = store.prune(*FULL, as_root=False)
    assert outcome.status == 13
    assert outcome.stderr.count("sealed") == 1
    assert "11 snapshots are sealed" in outcome.stderr
    assert [path.exists() for path in own] == [False, True], "it goes on with others"
    assert all(map(is_sealed, made))
    forced = store.prune("--prune-force", as_root=False)
    assert forced.status == 13
    assert "is sealed: only root deletes that" in forced.stderr
    assert store.prune(*FULL) == Outcome(0, "", "")
    assert [path.exists() for path in made] == [True] + [False] * 10


def test_hundreds_of_sealed_ones_cost_a_tick_little(store: SealedStore) -> None:
    directory = store.client(HOST)
    for number in range(300):
        moment = datetime(2010, 1, 1, tzinfo=UTC) + timedelta(days=number)
        path = directory / format_snapshot_name(moment)
        subprocess.run(
            ["btrfs", "-q", "subvolume", "snapshot", "-r", directory / "current", path],
            check=True,
        )
    assert store.tick().status == 0
    ticks = []
    for _ in range(5):
        before = processor_seconds()
        assert store.prune("--prune").status == 0
        ticks.append(processor_seconds() - before)
    assert min(ticks) < 0.5, ticks
