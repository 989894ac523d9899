"""A device, a directory or an old store becomes the store, or is refused."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from tests.integration.conftest import unmount
from tests.integration.programs import require_program, run_program
from tests.integration.server_setup.machine import (
    FSTAB,
    HOME,
    OPTIONS,
    SetUp,
    is_all_found,
    make_image,
    options_at,
    snapshot_of_machine,
    unmount_all,
)


def test_a_dry_run_changes_nothing(set_up: SetUp, device: Path) -> None:
    before = snapshot_of_machine()
    for words in (make_image("--dry-run"), ["--device", device, "-n"]):
        assert "would:" in set_up(*words).stdout
    assert snapshot_of_machine() == before
    assert not run_program(["wipefs", "--noheadings", device]).stdout


def test_a_used_mount_point_is_refused(set_up: SetUp, device: Path) -> None:
    HOME.mkdir()
    (HOME / "photo").touch()
    refused = set_up("--device", device, check=False)
    assert (refused.status, "is not empty" in refused.stderr) == (2, True)
    (HOME / "photo").unlink()
    run_program(["mount", "-t", "tmpfs", "none", HOME])
    refused = set_up("--device", device, check=False)
    assert (refused.status, "in use" in refused.stderr) == (2, True)
    assert not run_program(["wipefs", "--noheadings", device]).stdout


def test_a_device_becomes_the_store(set_up: SetUp, device: Path) -> None:
    set_up("--device", device)
    assert options_at(HOME) >= OPTIONS
    uuid = run_program(["blkid", "-p", "-o", "value", "-s", "UUID", device]).stdout
    assert f"UUID={uuid.strip()} {HOME} btrfs noatime," in FSTAB.read_text()
    (HOME / "kept").touch()
    assert is_all_found(set_up("--device", device))
    unmount(HOME)
    # A store is never formatted again, whatever is asked for.
    set_up("--device", device, "--format")
    assert (HOME / "kept").exists()


def test_a_device_is_mounted_after_a_lost_line(set_up: SetUp, device: Path) -> None:
    set_up("--device", device)
    FSTAB.write_text("")
    set_up("--device", device)
    assert FSTAB.read_text().count(str(HOME)) == 1


@pytest.mark.parametrize("program", ["mkfs.ext4", "mkfs.btrfs", "mkswap"])
def test_a_device_that_holds_anything_needs_format(
    set_up: SetUp, device: Path, program: str
) -> None:
    require_program(program)
    run_program([program, device])
    before = snapshot_of_machine()
    refused = set_up("--device", device, check=False)
    assert (refused.status, "--format" in refused.stderr) == (2, True)
    assert snapshot_of_machine() == before
    set_up("--device", device, "--format")
    assert is_all_found(set_up())


def test_a_mounted_device_is_always_refused(
    set_up: SetUp, device: Path, tmp_path: Path
) -> None:
    run_program(["mkfs.ext4", "-q", device])
    point = tmp_path / "point"
    point.mkdir()
    run_program(["mount", device, point])
    refused = set_up("--device", device, "--format", check=False)
    assert (refused.status, "in use" in refused.stderr) == (2, True)


def test_a_strange_line_in_fstab_is_refused(set_up: SetUp, device: Path) -> None:
    FSTAB.write_text(f"/dev/other {HOME} ext4 defaults 0 0\n")
    before = snapshot_of_machine()
    refused = set_up("--device", device, check=False)
    assert (refused.status, "/dev/other" in refused.stderr) == (2, True)
    assert snapshot_of_machine() == before


def test_an_administrators_line_is_not_edited(set_up: SetUp, device: Path) -> None:
    line = f"{device} {HOME} btrfs noatime 0 0\n"
    FSTAB.write_text(line)
    outcome = set_up("--device", device)
    assert FSTAB.read_text() == line
    assert "lacks compress=zstd,user_subvol_rm_allowed" in outcome.stdout


def test_a_directory_becomes_the_store(set_up: SetUp, btrfs_volume: Path) -> None:
    directory = btrfs_volume / "back ups"
    directory.mkdir()
    set_up("--directory", directory)
    assert pwd.getpwnam("byteback").pw_dir == str(directory)
    assert is_all_found(set_up("--directory", directory))
    assert is_all_found(set_up())


def test_a_directory_needs_the_mount_option(set_up: SetUp, device: Path) -> None:
    run_program(["mkfs.btrfs", "-q", device])
    HOME.mkdir()
    run_program(["mount", device, HOME])
    refused = set_up("--directory", HOME, check=False)
    assert refused.status == 2
    fix = f"mount -o remount,user_subvol_rm_allowed {HOME}"
    assert fix in refused.stderr
    run_program(fix.split())
    assert is_all_found(set_up("--directory", HOME)) is False
    assert is_all_found(set_up("--directory", HOME))


def test_a_strangers_directory_is_refused(set_up: SetUp, btrfs_volume: Path) -> None:
    (btrfs_volume / "photos").mkdir()
    before = snapshot_of_machine()
    refused = set_up("--directory", btrfs_volume, check=False)
    assert (refused.status, "is no store" in refused.stderr) == (2, True)
    assert snapshot_of_machine() == before


def test_an_old_store_is_taken_over_as_it_is(set_up: SetUp, btrfs_volume: Path) -> None:
    client = btrfs_volume / "client.example"
    client.mkdir(mode=0o755)
    run_program(["btrfs", "subvolume", "create", client / "current"])
    keys = btrfs_volume / ".ssh" / "authorized_keys"
    keys.parent.mkdir(mode=0o755)
    keys.write_text("an old line\n")
    for path in (btrfs_volume, client, keys.parent, keys):
        os.chown(path, 4711, 4711)
    set_up("--directory", btrfs_volume)
    assert pwd.getpwnam("byteback").pw_uid == 4711
    assert keys.read_text() == "an old line\n"
    assert client.stat().st_mode & 0o777 == 0o755
    assert (client / "current").stat().st_uid == 0


def test_root_follows_no_link_of_the_users(set_up: SetUp, tmp_path: Path) -> None:
    set_up(*make_image())
    victim = tmp_path / "victim"
    victim.write_text("root's own")
    keys = HOME / ".ssh" / "authorized_keys"
    keys.unlink()
    keys.symlink_to(victim)
    refused = set_up(check=False)
    assert (refused.status, "is a link" in refused.stderr) == (1, True)
    assert victim.stat().st_uid == 0


def test_an_existing_user_keeps_his_home(set_up: SetUp, device: Path) -> None:
    elsewhere = Path("/srv/elsewhere")
    run_program(["useradd", "--system", "-M", "-d", elsewhere, "byteback"])
    try:
        set_up("--device", device)
        assert pwd.getpwnam("byteback").pw_dir == str(elsewhere)
        assert elsewhere.is_mount()
        moved = set_up("--device", device, "--mount-point", "/srv/x", check=False)
        assert moved.status == 2
    finally:
        unmount_all(str(device))
        elsewhere.rmdir()
