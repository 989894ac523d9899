"""byteback-prune on a real btrfs volume, as root and as the store's own user."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import itertools
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from byteback.errors import ToolError
from byteback.model.snapshot import format_snapshot_name
from byteback.tools import btrfs
from tests.integration.conftest import ServerUser
from tests.integration.programs import Outcome, run_program

BTRFS_STAND_IN = Path("/usr/local/sbin/btrfs")
MIB = 2**20
FULL = ("--prune", "--minpercent", "99.5", "--maxpercent", "100")  # always short
FORCE = ("--prune-force",)

as_root_or_user = pytest.mark.parametrize(
    "as_root", [True, False], ids=["root", "user"]
)


@pytest.fixture
def volume_size() -> int:
    """One GiB: small enough to be filled to the last byte."""
    return 1 << 30


class PruneStore:
    """A store on a small volume, and byteback-prune as this server has it."""

    def __init__(self, user: ServerUser, bin_directory: Path) -> None:
        self.user = user
        self.root = user.home
        self.program = bin_directory / "byteback-prune"
        state = self.root / ".byteback"
        state.mkdir(mode=0o700, exist_ok=True)
        os.chown(state, user.uid, user.gid)

    def as_user(self, *argv: str | Path) -> Outcome:
        return run_program([*self._become(), *argv])

    def prune(self, *options: str, as_root: bool = True) -> Outcome:
        become = [] if as_root else self._become()
        return run_program([*become, self.program, *options], check=False)

    def client(self, host: str) -> Path:
        directory = self.root / host
        self.as_user("mkdir", directory)
        self.as_user("btrfs", "subvolume", "create", directory / "current")
        return directory

    def snapshot(
        self, host: str, days_old: int, megabytes: int = 0, names: int = 0
    ) -> Path:
        """A read-only snapshot of the store's user that alone holds what is in it."""
        time = datetime.now(UTC) - timedelta(days=days_old)
        path = self.root / host / format_snapshot_name(time)
        self.as_user("btrfs", "subvolume", "create", path)
        if megabytes:
            (path / "data").write_bytes(os.urandom(megabytes * MIB))
        for number in range(names):
            (path / long_name(number)).touch()
        self.as_user("btrfs", "property", "set", "-t", "subvol", path, "ro", "true")
        return path

    def history(
        self, host: str, *days_old: int, megabytes: int = 0, names: int = 0
    ) -> list[Path]:
        self.client(host)
        made = [self.snapshot(host, days, megabytes, names) for days in days_old]
        self.commit()
        return made

    def commit(self) -> None:
        run_program(["btrfs", "filesystem", "sync", self.root])

    def free_percent(self) -> float:
        self.commit()
        view = os.statvfs(self.root)
        return 100 * view.f_bavail / view.f_blocks

    def generation(self) -> str:
        shown = run_program(["btrfs", "subvolume", "find-new", self.root, "9999999"])
        return shown.stdout

    def _become(self) -> list[str | Path]:
        ids = ["--reuid", str(self.user.uid), "--regid", str(self.user.gid)]
        return ["setpriv", *ids, "--clear-groups", "env", f"HOME={self.root}"]


@pytest.fixture
def store(installed: Path, server_user: ServerUser) -> PruneStore:
    """An empty store on a small volume."""
    return PruneStore(server_user, installed)


@pytest.fixture
def btrfs_stand_in() -> Iterator[Path]:
    """Where to put a script that is found before the real btrfs."""
    BTRFS_STAND_IN.parent.mkdir(parents=True, exist_ok=True)
    yield BTRFS_STAND_IN
    BTRFS_STAND_IN.unlink(missing_ok=True)


def stand_in(path: Path, condition: str, action: str) -> None:
    """Make a btrfs that does ``action`` for some calls and else the real thing."""
    path.write_text(
        f'#!/bin/sh\ncase "$*" in {condition}) {action} ;; esac\n'
        'exec /usr/bin/btrfs "$@"\n'
    )
    path.chmod(0o755)


def limits_above(percent: float, wanted: float) -> tuple[str, ...]:
    """Limits by which ``percent`` free is a shortage, to be raised by ``wanted``."""
    low, high = percent + wanted / 2, percent + wanted
    return ("--minpercent", f"{low:.2f}", "--maxpercent", f"{high:.2f}")


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
    before = store.generation()
    assert store.prune("--prune", as_root=as_root) == Outcome(0, "", "")
    assert store.prune("--list", as_root=as_root).stderr == ""
    store.commit()
    assert store.generation() == before
    assert [p.name for p in (store.root / ".byteback").iterdir()] == ["reserve"]


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


def long_name(number: int) -> str:
    """A name that takes much metadata, and no data at all."""
    return f"{number:0200d}"


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


def fill_with_names(directory: Path) -> None:
    """Make empty files until there is no room for one more."""
    try:
        for number in itertools.count():
            (directory / long_name(number)).touch()
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


def test_other_users_are_sent_away(store: PruneStore) -> None:
    somebody = ["setpriv", "--reuid", "65534", "--clear-groups"]
    for option in ("--list", "--prune", "--prune-force"):
        outcome = run_program([*somebody, store.program, option], check=False)
        assert (outcome.status, outcome.stdout) == (1, "")
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


# --- Discarding, and what crashes leave behind -------------------------------------


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
            btrfs.delete_subvolume(store.root / path)
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
    store.history("a", 0, 3)
    outcome = store.prune("--list", "--timeline", as_root=False)
    assert outcome.stdout.splitlines()[1] == "a  |..|"


# --- Room of the wrong kind, the reserve, and speed ---------------------------------


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
        if number % 500 == 0 and btrfs.free_space(store.root).percent < 4:
            break
    store.commit()
    assert store.free_percent() > 20
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


def test_a_full_disc_of_names_heals_for_the_user_too(store: PruneStore) -> None:
    made = store.history("a", 0, 10, 20, names=6000)
    store.prune("--prune", as_root=False)
    fill_with_names(store.root / "a" / "current")
    store.commit()
    outcome = store.prune("--prune", as_root=False)
    assert outcome == Outcome(0, "", "")
    assert made[0].exists()
    assert not made[2].exists()
    (store.root / "a" / "current" / "afterwards").touch()


def test_a_tick_is_quick_with_many_snapshots(store: PruneStore) -> None:
    for host in range(20):
        store.history(f"h{host}", *range(30))
    store.prune("--prune")
    ticks = []
    for _ in range(5):
        started = time.monotonic()
        assert store.prune("--prune").status == 0
        ticks.append(time.monotonic() - started)
    assert min(ticks) < 0.5, ticks  # a tenth of a second on an idle machine
