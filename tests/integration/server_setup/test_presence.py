"""A store that is not mounted is never taken for an empty one."""

from __future__ import annotations

import pwd
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.integration.conftest import STORE_MARK, unmount
from tests.integration.programs import Outcome, run_program
from tests.integration.server_setup.machine import (
    FSTAB,
    HOME,
    IMAGE,
    SIZE,
    SetUp,
    is_all_found,
    make_image,
    snapshot_of_machine,
)

CLIENT = "client.example"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHHHbWPRBhTBTYFKGzTFVoQv4uFdCDZOc2jRrvXuAYTd"
PUSH = "rsync --server -logDtpre.iLsfxCIvu . ."
NOWHERE = Path("/var/lib/no-such-image")
OTHER = IMAGE.with_suffix(".other")
BY_HAND: tuple[tuple[str, ...], ...] = (
    ("byteback-prune", "--list"),
    ("byteback-prune", "--list", "--timeline"),
    ("byteback-prune", "--prune"),
    ("byteback-prune", "--prune-force"),
    ("byteback-prune", "--approve", CLIENT),
    ("byteback-prune", "--discard", CLIENT),
    ("byteback-snapshot", "--root", CLIENT),
    ("byteback-setup-client-receive", "new.example", *KEY.split()),
)


def as_user(*argv: str | Path, check: bool = True, request: str = "") -> Outcome:
    """Run a program as the store's user, as sshd does."""
    user = pwd.getpwnam("byteback")
    become = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    env = {"HOME": user.pw_dir, "SSH_ORIGINAL_COMMAND": request}
    return run_program(["setpriv", *become, *argv], check=check, env=env)


def receive(request: str) -> Outcome:
    return as_user("byteback-receive", "--host", CLIENT, check=False, request=request)


def without_store(words: Sequence[str]) -> list[Outcome]:
    """Run a program as root, and as the store's user, while there is none."""
    both = [run_program(words, check=False), as_user(*words, check=False)]
    assert list(HOME.iterdir()) == [], words
    return both


@pytest.fixture
def store(set_up: SetUp) -> Iterator[Path]:
    """A store in an image, with one client."""
    set_up(*make_image())
    run_program(["byteback-setup-client-receive", CLIENT, *KEY.split()])
    yield HOME
    OTHER.unlink(missing_ok=True)


@pytest.fixture
def bare(store: Path) -> Path:
    """Its mount point, with nothing mounted, and nothing that could be."""
    unmount(store)
    FSTAB.write_text(FSTAB.read_text().replace(str(IMAGE), str(NOWHERE)))
    return store


@pytest.mark.parametrize("words", BY_HAND, ids=" ".join)
def test_each_program_tells_that_it_is_not_mounted(
    bare: Path, words: Sequence[str]
) -> None:
    for outcome in without_store(words):
        assert (outcome.status, outcome.stdout) == (10, ""), outcome
        assert f"the store is not mounted at '{HOME}'" in outcome.stderr
        assert f"'mount {HOME}' mounts it" in outcome.stderr


@pytest.mark.parametrize(
    "request_", ["byteback-receive --ping", "byteback-receive --complete", PUSH]
)
def test_a_client_is_told_in_a_word(bare: Path, request_: str) -> None:
    """Although it has no directory there, it is not sent to enrol anew."""
    outcome = receive(request_)
    assert (outcome.status, outcome.stdout) == (75, "")
    said = outcome.stderr.splitlines()
    assert said[0] == (
        "byteback-receive: error: the server's store is not there: "
        "its disc is not mounted"
    )
    assert "setup-client" not in outcome.stderr
    assert said[-2:] == ["  status: 75", "  reason: store-missing"]
    assert list(HOME.iterdir()) == []


def test_an_enrolling_client_is_told_in_a_word(bare: Path) -> None:
    words = ("byteback-setup-client-receive", "new.example", *KEY.split())
    for outcome in without_store(words):
        assert outcome.stderr.splitlines()[-1] == "  reason: store-missing"


def test_a_tick_of_roots_mounts_it(store: Path) -> None:
    unmount(store)
    assert as_user("byteback-prune", "--prune", check=False).status == 10
    assert run_program(["byteback-prune", "--list"], check=False).status == 10
    assert not store.is_mount()
    outcome = run_program(["byteback-prune", "--prune", "--verbose"])
    assert f"the store was not mounted, and is mounted now: {HOME}" in outcome.stderr
    assert store.is_mount()


def test_a_tick_tries_once_and_tells_why_it_failed(bare: Path) -> None:
    outcome = run_program(["byteback-prune", "--prune"], check=False)
    assert outcome.status == 10
    assert "it could not be mounted: mount failed" in outcome.stderr
    assert str(NOWHERE) in outcome.stderr


def test_a_store_of_before_is_known_from_the_next_tick_on(store: Path) -> None:
    mark = STORE_MARK.read_text()
    STORE_MARK.unlink()
    assert as_user("byteback-prune", "--prune").status == 0
    assert not STORE_MARK.exists(), "only root records it"
    run_program(["byteback-prune", "--prune"])
    assert STORE_MARK.read_text() == mark
    STORE_MARK.unlink()
    unmount(store)
    table = FSTAB.read_text()
    FSTAB.write_text(table.replace(str(IMAGE), str(NOWHERE)))
    for outcome in without_store(["byteback-prune", "--prune"]):
        assert outcome.status == 10
    assert receive("byteback-receive --ping").status == 75
    assert not STORE_MARK.exists()
    FSTAB.write_text(table)
    run_program(["byteback-prune", "--prune"])
    assert STORE_MARK.read_text() == mark


def make_other(path: Path = OTHER) -> Path:
    with path.open("wb") as file:
        file.truncate(SIZE)
    run_program(["mkfs.btrfs", "-q", path])
    return path


def test_another_file_system_in_its_place_is_not_the_store(
    store: Path, set_up: SetUp
) -> None:
    unmount(store)
    options = "loop,user_subvol_rm_allowed"
    run_program(["mount", "-o", options, make_other(), store])
    assert run_program(["byteback-prune", "--prune"], check=False).status == 10
    assert receive("byteback-receive --ping").status == 75
    before = snapshot_of_machine()
    refused = set_up(check=False)
    assert (refused.status, "is not mounted" in refused.stderr) == (10, True)
    assert list(store.iterdir()) == []
    assert snapshot_of_machine() == before
    # Named, it is the store from now on.
    assert f"in {STORE_MARK}" in set_up("--directory", store).stdout
    assert is_all_found(set_up())
    assert run_program(["byteback-prune", "--list"]).stdout == ""


def test_another_subvolume_of_the_same_btrfs_is_not_the_store(
    btrfs_volume: Path, set_up: SetUp
) -> None:
    """Where the root directory is a btrfs, a bare mount point is on one, too."""
    run_program(["btrfs", "subvolume", "create", btrfs_volume / "@store"])
    loop = run_program(["findmnt", "-n", "-o", "SOURCE", btrfs_volume]).stdout.strip()
    options = "subvol=@store,user_subvol_rm_allowed"
    place = btrfs_volume / "store"
    place.mkdir()
    run_program(["mount", "-o", options, loop, place])
    try:
        set_up("--directory", place)
        assert run_program(["byteback-prune", "--list"]).status == 0
    finally:
        unmount(place)
    for outcome in (
        run_program(["byteback-prune", "--list"], check=False),
        as_user("byteback-prune", "--list", check=False),
        set_up(check=False),
    ):
        assert outcome.status == 10, outcome
    assert list(place.iterdir()) == []


def test_set_up_makes_no_store_of_a_bare_mount_point_on_btrfs(
    btrfs_volume: Path, set_up: SetUp
) -> None:
    """As on a machine whose root directory is a btrfs."""
    place = btrfs_volume / "store"
    set_up(*make_image("--mount-point", place))
    STORE_MARK.unlink()  # an older byteback made it
    unmount(place)
    run_program(["mount", "-o", "remount,user_subvol_rm_allowed", btrfs_volume])
    assert as_user("byteback-prune", "--list", check=False).status == 10
    try:
        set_up()
        assert place.is_mount()
        assert is_all_found(set_up())
    finally:
        unmount(place)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("words", BY_HAND, ids=" ".join)
def test_a_read_only_store_is_told(store: Path, words: Sequence[str]) -> None:
    run_program(["mount", "-o", "remount,ro", store])
    for outcome in (run_program(words, check=False), as_user(*words, check=False)):
        if "--list" in words:
            assert outcome.status == 0
        else:
            assert outcome.status == 10
            assert f"the store '{HOME}' is read-only" in outcome.stderr
    writes = receive("byteback-receive --complete")
    assert writes.status == 75
    assert writes.stderr.splitlines()[-1] == "  reason: store-failed"
    assert receive("byteback-receive --ping").status == 0
    run_program(["mount", "-o", "remount,rw", store])
    assert run_program(["byteback-prune", "--prune"]).status == 0


def test_a_mark_that_cannot_be_read_is_none(store: Path) -> None:
    for content in (b"", b"\0\xff", b"subvolume x\n", b"filesystem\n", b"x" * 9999):
        STORE_MARK.write_bytes(content)
        assert as_user("byteback-prune", "--list").status == 0
    run_program(["byteback-prune", "--prune"])
    assert "subvolume 5\n" in STORE_MARK.read_text()
    assert STORE_MARK.stat().st_mode & 0o777 == 0o644
    assert STORE_MARK.parent.stat().st_mode & 0o777 == 0o755
