"""A disc that is full to the last byte, of data or of names, heals by itself."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from byteback.system.btrfs import commands
from tests.integration.programs import Outcome, run_program
from tests.integration.pruning.store import (
    FULL,
    MIB,
    PruneStore,
    fill_with_names,
    long_name,
    stand_in,
)

QUICK_TO_FILL = 400 * MIB  # with names: each GiB takes half a million


def fill_with_data(directory: Path) -> None:
    """Write until not a byte more goes in."""
    for size in (MIB, 4096, 100):
        with (directory / f"fill-{size}").open("wb", buffering=0) as file:
            write_until_full(file, size)


def write_until_full(file: io.FileIO, size: int) -> None:
    """Write pieces of ``size`` bytes until the disc takes no more."""
    try:
        while True:
            file.write(os.urandom(size))
            if size < MIB:
                os.fsync(file)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


@pytest.mark.parametrize(
    ("fill", "as_root"), [(fill_with_data, False), (fill_with_names, True)]
)
def test_a_disc_filled_to_the_last_byte_heals(
    store: PruneStore, fill: Callable[[Path], None], as_root: bool
) -> None:
    made = store.history("a", 0, 10, 20, 30, megabytes=200, names=6000)
    fill(store.root / "a" / "current")
    store.commit()
    with pytest.raises(OSError, match="No space"):
        (store.root / "probe").write_bytes(os.urandom(MIB))
    outcome = store.prune("--prune", as_root=as_root)
    assert outcome == Outcome(0, "", "")
    assert made[0].exists()
    assert not made[3].exists()
    (store.root / "a" / "current" / "afterwards").write_bytes(os.urandom(MIB))
    assert store.free_percent() >= 10


def test_metadata_that_current_holds_is_fetched_from_spare_data_room(
    store: PruneStore,
) -> None:
    made = store.history("a", 1, 10, 20, 30)
    current = store.root / "a" / "current"
    # All space is handed out to data, and then most of it is given up again, but for
    # a little in each piece that btrfs hands out.
    number = 0
    with contextlib.suppress(OSError):
        for number in range(400):
            (store.root / f"data-{number}").write_bytes(os.urandom(4 * MIB))
            store.commit()
    for every in range(number + 1):
        if every % 8:
            (store.root / f"data-{every}").unlink(missing_ok=True)
    store.commit()
    for number in itertools.count():
        (current / long_name(number)).touch()
        if number % 500 == 0 and commands.free_space(store.root).percent < 4:
            break
    store.commit()
    assert store.free_percent() > 20
    store.prune("--approve", "a")  # what is suddenly larger counts as free until then
    outcome = store.prune("--prune", "--verbose")
    assert "compacted data" in outcome.stderr, outcome
    assert all(path.exists() for path in made)
    (current / "afterwards").touch()


def test_the_reserve_is_given_up_where_deletion_finds_no_space(
    store: PruneStore, btrfs_stand_in: Path, tmp_path: Path
) -> None:
    made = store.history("a", 0, 10)
    store.prune("--prune")
    reserve = store.root / ".byteback" / "reserve"
    assert reserve.exists()
    fail = "echo 'ERROR: Could not destroy: No space left on device' >&2; exit 1"
    while_it_is_there = f"[ ! -e {reserve} ] || {{ {fail}; }}"
    stand_in(btrfs_stand_in, "*'subvolume delete'*", while_it_is_there)
    outcome = store.prune(*FULL, "--verbose")
    assert "gave up the reserve" in outcome.stderr
    assert [path.exists() for path in made] == [True, False]
    btrfs_stand_in.unlink()
    store.prune("--prune")
    assert reserve.exists(), "made again when there is room"
    assert reserve.stat().st_uid == store.user.uid


@pytest.mark.parametrize("volume_size", [QUICK_TO_FILL])
def test_a_full_disc_of_names_heals_for_the_user_too(store: PruneStore) -> None:
    made = store.history("a", 0, 10, 20, names=2400)
    store.prune("--prune", as_root=False)
    fill_with_names(store.root / "a" / "current")
    store.commit()
    outcome = store.prune("--prune", as_root=False)
    assert outcome == Outcome(0, "", "")
    assert made[0].exists()
    assert not made[2].exists()
    (store.root / "a" / "current" / "afterwards").touch()


# --- A small volume, where data and metadata are mixed -----------------------------

mixed = [
    pytest.mark.parametrize("mkfs_options", [("--mixed",)], ids=["mixed"]),
    pytest.mark.parametrize("volume_size", [256 << 20], ids=["small"]),
]


def with_mixed(test: Callable[..., None]) -> Callable[..., None]:
    for mark in mixed:
        test = mark(test)
    return test


def fill_mixed(store: PruneStore) -> list[Path]:
    """A history, and then not a byte more for anything: not even to clear a flag."""
    made = store.history("a", 0, 10, 20, 30, megabytes=20)
    store.prune("--prune", as_root=False)
    for fill in (fill_with_data, fill_with_names) * 2:  # what a commit gives back, too
        with contextlib.suppress(OSError):
            fill(store.root / "a" / "current")
        store.commit()
    flags = ("btrfs", "property", "set", "-t", "subvol", made[1], "ro", "false")
    assert run_program([*store.as_user_words, *flags], check=False).status == 1
    return made


@with_mixed
def test_the_user_gives_the_reserve_up_to_clear_a_flag(store: PruneStore) -> None:
    made = fill_mixed(store)
    assert store.prune("--prune", as_root=False) == Outcome(0, "", "")
    assert [path.exists() for path in made] == [True, True, True, False]
    assert store.free_percent() >= 5


@with_mixed
def test_without_a_reserve_the_user_gives_up_the_indexes(store: PruneStore) -> None:
    hosts = store.root / ".byteback" / "hosts"
    hosts.mkdir(mode=0o700)
    reserve = store.root / ".byteback" / "reserve"
    reserve.touch()  # of nothing
    (hosts / "a.names").write_bytes(os.urandom(8 * MIB))
    for path in (hosts, hosts / "a.names", reserve):
        os.chown(path, store.user.uid, store.user.gid)
    made = fill_mixed(store)
    assert store.prune("--prune", as_root=False) == Outcome(0, "", "")
    assert [path.exists() for path in (made[0], made[3])] == [True, False]


def test_what_the_user_cannot_make_room_for_is_left_to_root(
    store: PruneStore, btrfs_stand_in: Path, tmp_path: Path
) -> None:
    made = store.history("a", 0, 10, 20)
    fail = "echo 'ERROR: Could not set flags: No space left on device' >&2; exit 1"
    stand_in(btrfs_stand_in, "*'property set'*", fail)
    outcome = store.prune(*FULL, "--verbose", as_root=False)
    assert outcome.status == 13
    assert outcome.stderr.count("cannot delete a/") == 1, (
        "the next would fare no better"
    )
    assert "only root can delete a snapshot" in outcome.stderr
    assert all(path.exists() for path in made)
    assert store.prune(*FULL) == Outcome(0, "", "")
    assert [path.exists() for path in made] == [True, False, False]
