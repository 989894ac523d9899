"""byteback-prune on a real btrfs volume, as root and as the store's own user."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shlex
from datetime import datetime
from pathlib import Path

import pytest

from byteback.errors import ToolError
from byteback.model.snapshot import parse_snapshot_name
from byteback.system.btrfs import commands
from tests.integration.programs import Outcome, processor_seconds, run_program
from tests.integration.pruning.store import (
    BTRFS_STAND_IN,
    FORCE,
    FULL,
    PruneStore,
    as_root_or_user,
    limits_above,
    stand_in,
    wait_for_orphans,
)


def test_deletes_the_last_of_the_order_until_there_is_room(store: PruneStore) -> None:
    store.history("a", 0, 10, 20, 30, 40, 50, megabytes=80)
    listed = [line.split()[0] for line in store.prune("--list").stdout.splitlines()]
    limits = limits_above(store.free_percent(), 12)
    outcome = store.prune("--prune", *limits)
    assert outcome == Outcome(0, "", "")
    left = {str(p.relative_to(store.root)) for p in (store.root / "a").glob("20*")}
    # 80 MiB are 7.8 percent of the volume: twelve percent take two.
    assert left == set(listed[:4])
    assert store.free_percent() >= float(limits[3])
    assert not (store.root / ".byteback" / "pruning").exists()


@as_root_or_user
def test_a_tick_with_nothing_to_do_writes_nothing(
    store: PruneStore, as_root: bool
) -> None:
    store.history("a", 0, 10, 20)
    assert store.prune("--prune", as_root=as_root).status == 0  # makes the reserve
    store.commit()
    before = store.generation()
    names = sorted(path.name for path in (store.root / ".byteback").iterdir())
    assert store.prune("--prune", as_root=as_root) == Outcome(0, "", "")
    assert store.prune("--list", as_root=as_root).stderr == ""
    store.commit()
    assert store.generation() == before
    assert sorted(path.name for path in (store.root / ".byteback").iterdir()) == names


def test_each_deletion_is_one_line(store: PruneStore) -> None:
    store.history("a", 0, 10, 20, megabytes=80)
    limits = limits_above(store.free_percent(), 5)
    outcome = store.prune("--prune", "--verbose", *limits)
    told = [line for line in outcome.stderr.splitlines() if "deleted a/" in line]
    assert len(told) == 1
    assert "free space was" in told[0]


def test_foreign_young_newest_and_linked_stay(store: PruneStore) -> None:
    made = store.history("a", 1, 6)
    dormant = store.history("dormant", 700)
    outside = store.root / "outside"
    store.as_user("btrfs", "subvolume", "create", outside)
    saved = store.root / "a" / "saved-do-not-delete"
    store.as_user("btrfs", "subvolume", "create", saved)
    link = store.root / "a" / "2019-01-01T00:00+0000"
    link.symlink_to(outside)
    plain = store.root / "a" / "2019-01-02T00:00+0000"
    plain.mkdir()
    outcome = store.prune(*FULL)
    assert outcome == Outcome(0, "", "")
    for path in [*made, *dormant, outside, saved, link, plain]:
        assert path.exists(), path
    assert "younger than a week or the newest" in (store.no_room() or "")
    assert store.prune("--prune") == Outcome(0, "", "")
    assert store.no_room() is None
    assert (store.root / "a" / "current").is_dir()


def test_force_deletes_one_at_a_time_and_the_newest_last(store: PruneStore) -> None:
    made = store.history("a", 0, 1, 2)
    for left in (2, 1, 0):
        assert store.prune("--prune-force").status == 0
        assert [path.exists() for path in made].count(True) == left
        assert made[0].exists() == (left > 0)
    assert store.prune("--prune-force").status == 0


def test_a_snapshot_of_roots_needs_root(store: PruneStore) -> None:
    made = store.history("a", 0, 10)
    run_program(["btrfs", "property", "set", "-t", "subvol", made[1], "ro", "false"])
    os.chown(made[1], 0, 0)
    run_program(["btrfs", "property", "set", "-t", "subvol", made[1], "ro", "true"])
    outcome = store.prune("--prune-force", as_root=False)
    assert outcome.status == 13
    assert "run this as root" in outcome.stderr
    assert made[1].exists()
    assert store.prune("--prune-force").status == 0
    assert not made[1].exists()


def test_many_failures_are_told_once_on_a_terminal(store: PruneStore) -> None:
    made = store.history("a", 0, 10, 20, 30, 40, 50, 60)
    stand_in(
        BTRFS_STAND_IN,
        "*'subvolume delete'*",
        'echo "ERROR: cannot delete: Operation not permitted" >&2; exit 1',
    )
    try:
        command = shlex.join(
            [*map(str, store.as_user_words), str(store.program), *FULL]
        )
        outcome = run_program(["script", "-qec", command, "/dev/null"], check=False)
    finally:
        BTRFS_STAND_IN.unlink()
    assert outcome.status == 13
    assert all(path.exists() for path in made)
    said = outcome.stdout.splitlines()
    told = [line for line in said if "btrfs failed" in line]
    assert len(told) == 1, said
    assert told[0].endswith("(and 4 more)")
    assert len([line for line in said if "run this as root" in line]) == 1


def test_what_is_left_to_root_is_an_alarm_only_where_root_does_not_come(
    store: PruneStore,
) -> None:
    made = store.history("a", 0, 10)
    run_program(["btrfs", "property", "set", "-t", "subvol", made[1], "ro", "false"])
    os.chown(made[1], 0, 0)
    assert store.prune(*FULL, as_root=False).status == 13
    assert "only root can delete" in (store.no_room() or "")
    assert store.prune("--prune").status == 0
    assert store.no_room() is None
    assert store.prune(*FULL, as_root=False).status == 13
    assert store.no_room() is None


def test_force_takes_a_newest_only_when_no_other_is_left(store: PruneStore) -> None:
    (newest,) = store.history("a", 3)
    old = store.history("b", 1, 10)
    assert store.prune("--prune-force") == Outcome(0, "", "")
    assert [path.exists() for path in (newest, *old)] == [True, True, False]
    outcome = store.prune("--prune-force")
    assert (outcome.status, outcome.stderr) == (0, "")
    assert f"deleted a/{newest.name}, the newest of host 'a'" in outcome.stdout


def test_the_list_marks_what_cannot_be_deleted(store: PruneStore) -> None:
    made = store.history("a", 0, 10, 20)
    run_program(["btrfs", "property", "set", "-t", "subvol", made[1], "ro", "false"])
    os.chown(made[1], 0, 0)
    plain = store.root / "a" / "2019-01-02T00:00+0000"
    plain.mkdir()

    def listed(*, as_root: bool) -> dict[str, str]:
        lines = store.prune("--list", as_root=as_root).stdout.splitlines()
        marked = [line.partition("cannot be deleted: ") for line in lines]
        return {words.split()[0]: why for words, _, why in marked if why}

    assert listed(as_root=True) == {f"a/{plain.name}": "it is no subvolume"}
    assert listed(as_root=False) == {
        f"a/{plain.name}": "it is no subvolume",
        f"a/{made[1].name}": "it is root's: only root deletes it",
    }


def test_metadata_has_the_room_that_btrfs_tells_root(store: PruneStore) -> None:
    store.history("a", 0, names=2000)
    room = commands.free_space(store.root).metadata
    told = run_program(["btrfs", "filesystem", "usage", "-b", store.root]).stdout
    ((size, used),) = re.findall(r"\nMetadata,\w+: Size:(\d+), Used:(\d+)", told)
    (unallocated,) = re.findall(r"Device unallocated:\s+(\d+)", told)
    assert room is not None
    assert (room.size, room.used) == (int(size), int(used))
    assert room.unallocated == int(unallocated) // 2  # DUP


def test_the_users_run_is_not_told_to_run_as_root(store: PruneStore) -> None:
    store.history("a", 0, 10)
    for options in (("--prune",), FULL, FORCE):
        outcome = store.prune(*options, "--verbose", as_root=False)
        assert outcome.status == 0
        assert "run as root" not in outcome.stderr


def test_an_overlapping_run_ends_quietly(store: PruneStore) -> None:
    made = store.history("a", 0, 10)
    descriptor = os.open(store.root, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        assert store.prune(*FULL, as_root=False) == Outcome(0, "", "")
        assert store.prune("--prune-force").status == 11
        assert len(store.prune("--list").stdout.splitlines()) == 2
    finally:
        os.close(descriptor)
    assert all(path.exists() for path in made)


@pytest.mark.parametrize(
    ("moment", "options", "as_root"),
    [
        ("*rootid*", FULL, True),
        # Forced, for that needs no waiting first, which takes the user its time.
        ("*'property set'*", FORCE, False),
        ("*'subvolume delete'*", FORCE, False),
        ("*'subvolume delete'*", FULL, True),
        ("*'subvolume sync'*", FULL, True),
    ],
)
def test_killed_at_any_step_the_next_run_finishes(
    store: PruneStore,
    btrfs_stand_in: Path,
    moment: str,
    options: tuple[str, ...],
    as_root: bool,
) -> None:
    made = store.history("a", 0, 10, 20)
    # The step itself may still be done, after the death of the one who asked for it.
    stand_in(btrfs_stand_in, moment, "kill -KILL $PPID")
    assert store.prune(*options, as_root=as_root).status == -9
    wait_for_orphans()
    btrfs_stand_in.unlink()
    assert store.prune(*options, as_root=as_root).status == 0
    assert [path.exists() for path in (made[0], made[2])] == [True, False]
    if options == FULL:
        assert not made[1].exists()


def test_a_failed_deletion_is_told_and_stays_read_only(
    store: PruneStore, btrfs_stand_in: Path
) -> None:
    made = store.history("a", 0, 10, 20)
    fail = "echo 'ERROR: no such luck' >&2; exit 1"
    # Root names it by its number.
    number = run_program(["btrfs", "inspect-internal", "rootid", made[2]]).stdout
    stand_in(btrfs_stand_in, f"*'subvolume delete'*' {number.strip()} '*", fail)
    outcome = store.prune(*FULL)
    assert outcome.status == 13
    assert "no such luck" in outcome.stderr
    assert [path.exists() for path in made] == [True, False, True]
    assert "snapshots could not be deleted" in (store.no_room() or "")
    with pytest.raises(OSError, match="Read-only") as caught:
        (made[2] / "file").touch()
    assert caught.value.errno == errno.EROFS


def test_a_deletion_that_finds_no_space_at_first_is_tried_again(
    store: PruneStore, btrfs_stand_in: Path, tmp_path: Path
) -> None:
    made = store.history("a", 0, 10)
    tried = tmp_path / "tried"
    fail = "echo 'ERROR: Could not destroy: No space left on device' >&2; exit 1"
    first_time = f"[ -e {tried} ] || {{ touch {tried}; {fail}; }}"
    stand_in(btrfs_stand_in, "*'subvolume delete'*", first_time)
    assert store.prune(*FULL) == Outcome(0, "", "")
    assert tried.exists()
    assert [path.exists() for path in made] == [True, False]


def test_other_users_are_sent_away(store: PruneStore) -> None:
    somebody = ["setpriv", "--reuid", "65534", "--clear-groups"]
    for option in ("--list", "--prune", "--prune-force"):
        outcome = run_program([*somebody, store.program, option], check=False)
        assert (outcome.status, outcome.stdout) == (2, "")
        assert "only root and the user 'byteback'" in outcome.stderr


def test_a_directory_closed_to_the_user_stops_nothing(store: PruneStore) -> None:
    store.history("a", 0, 10)
    closed = store.root / "closed"
    closed.mkdir(mode=0o700)
    assert len(store.prune("--list", as_root=False).stdout.splitlines()) == 2


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--list", "--prune"),
        ("--list", "--prune-force"),
        ("--prune", "-m", "10", "-a", "5"),
        ("--prune", "--order", "size"),
    ],
)
def test_contradictions_are_usage_errors(
    store: PruneStore, options: tuple[str, ...]
) -> None:
    assert store.prune(*options).status == 2


def test_root_deletes_nothing_by_a_link(store: PruneStore) -> None:
    roots = store.root / "roots"
    run_program(["btrfs", "subvolume", "create", roots])
    inner = roots / "inner"
    run_program(["btrfs", "subvolume", "create", inner])
    (store.root / "host").symlink_to(roots)
    (store.root / "a").mkdir()
    (store.root / "a" / "inner").symlink_to(inner)
    (store.root / "a" / "plain").mkdir()
    for path in ("host/inner", "a/inner", "a/plain", "a/missing"):
        with pytest.raises(ToolError):
            commands.delete_subvolume(store.root / path)
    assert inner.exists()
    assert (store.root / "a" / "plain").exists()


def test_state_files_are_never_roots(store: PruneStore) -> None:
    store.history("a", 0, 10)
    precious = store.root.parent / f"{store.root.name}-precious"
    (store.root / ".byteback" / "pruning").symlink_to(precious)
    store.prune(*FULL)
    assert not precious.exists()
    for path in (store.root / ".byteback").iterdir():
        assert path.lstat().st_uid == store.user.uid or path.is_symlink()


def test_a_timeline_is_drawn(store: PruneStore) -> None:
    newest = parse_snapshot_name(store.history("a", 0, 3)[0].name)
    assert newest is not None
    first_day = datetime.now().astimezone().date()
    outcome = store.prune("--list", "--timeline", as_root=False)
    last_day = datetime.now().astimezone().date()  # midnight may come at any moment
    ages = [(day - newest.astimezone().date()).days for day in (first_day, last_day)]
    lines = [f"a  |..|{'.' * days}" for days in ages]
    assert outcome.stdout.splitlines()[1] in lines


def test_a_tick_is_quick_with_many_snapshots(store: PruneStore) -> None:
    for host in range(20):
        store.history(f"h{host}", *range(30))
    store.prune("--prune")
    ticks = []
    for _ in range(5):
        before = processor_seconds()
        assert store.prune("--prune").status == 0
        ticks.append(processor_seconds() - before)
    assert min(ticks) < 0.5, ticks  # a tenth of a second on an idle machine
