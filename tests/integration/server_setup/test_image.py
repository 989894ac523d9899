"""byteback-setup-server makes a store in an image, once, again and after damage."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import pytest

from byteback.server.store import settings
from tests.integration.conftest import INTERPRETER, unmount
from tests.integration.programs import run_program
from tests.integration.server_setup.machine import (
    CRON,
    FSTAB,
    HOME,
    IMAGE,
    OPTIONS,
    PLAIN,
    SERVER_TOML,
    SIZE,
    SetUp,
    is_all_found,
    make_image,
    options_at,
    snapshot_of_machine,
)


def test_an_image_makes_a_server_in_one_command(set_up: SetUp) -> None:
    set_up(*make_image())
    user = pwd.getpwnam("byteback")
    assert (user.pw_dir, user.pw_shell) == (str(HOME), "/bin/sh")
    shadow = run_program(["getent", "shadow", "byteback"]).stdout
    assert shadow.split(":")[1] == "*"
    assert options_at(HOME) >= OPTIONS
    assert not options_at(HOME) & {"autodefrag", "clear_cache"}
    assert (
        f"{IMAGE} {HOME} btrfs loop,noatime,compress=zstd,user_subvol_rm_allowed"
        in (FSTAB.read_text())
    )
    assert IMAGE.stat().st_blocks * 512 < SIZE / 4
    assert IMAGE.stat().st_mode & 0o777 == 0o600


def test_owners_modes_and_schedule(set_up: SetUp) -> None:
    set_up(*make_image())
    uid = pwd.getpwnam("byteback").pw_uid
    for name, mode in {
        "": 0o750,
        ".ssh": 0o700,
        ".ssh/authorized_keys": 0o600,
        ".byteback": 0o700,
    }.items():
        status = (HOME / name).lstat()
        assert (status.st_uid, status.st_mode & 0o777) == (uid, mode), name
    if not Path("/run/systemd/system").exists():
        assert CRON.stat().st_mode & 0o777 == 0o644
        assert CRON.read_text().endswith("/byteback-prune --prune\n")


def test_the_user_can_do_his_work(set_up: SetUp) -> None:
    set_up(*make_image())
    program = (
        "set -e; btrfs subvolume create ~/a; btrfs subvolume snapshot -r ~/a ~/b;"
        "btrfs property set -t subvol ~/b ro false; btrfs subvolume delete ~/a ~/b"
    )
    run_program(["su", "byteback", "-c", program])


def test_running_again_changes_nothing(set_up: SetUp) -> None:
    set_up(*make_image())
    before = snapshot_of_machine()
    assert is_all_found(set_up(*make_image()))
    assert is_all_found(set_up())
    assert snapshot_of_machine() == before


def test_it_is_mounted_again_after_a_reboot(set_up: SetUp) -> None:
    set_up(*make_image())
    (HOME / "kept").touch()
    unmount(HOME)
    set_up()
    assert (HOME / "kept").exists()
    unmount(HOME)
    run_program(["mount", HOME])
    assert (HOME / "kept").exists()


def test_damage_is_repaired(set_up: SetUp) -> None:
    set_up(*make_image())
    (HOME / ".ssh" / "authorized_keys").write_text("# mine\n")
    (HOME / ".ssh").chmod(0o777)
    os.chown(HOME / ".ssh" / "authorized_keys", 0, 0)
    run_program(["usermod", "--shell", "/usr/sbin/nologin", "-p", "!", "byteback"])
    FSTAB.write_text(FSTAB.read_text().replace(",user_subvol_rm_allowed", ""))
    CRON.write_text("broken")
    unmount(HOME)
    run_program(["mount", HOME])
    set_up()
    assert options_at(HOME) >= OPTIONS
    assert pwd.getpwnam("byteback").pw_shell == "/bin/sh"
    assert (HOME / ".ssh" / "authorized_keys").read_text() == "# mine\n"
    assert is_all_found(set_up())


def test_a_failed_mount_does_not_block_the_next_run(set_up: SetUp) -> None:
    # A mount program that fails as in a container without loop devices.
    fake = Path("/usr/local/sbin/mount")
    fake.write_text("#!/bin/sh\necho 'failed to setup loop device' >&2\nexit 32\n")
    fake.chmod(0o755)
    try:
        failed = set_up(*make_image(), check=False)
    finally:
        fake.unlink()
    assert failed.status == 13
    assert "--device" in failed.stderr
    assert str(HOME) not in FSTAB.read_text()
    set_up(*make_image())
    assert is_all_found(set_up())


@pytest.mark.parametrize("lines", [0, 1, 2, 3, 4, 6, 8])
def test_a_killed_run_is_finished_by_the_next(
    set_up: SetUp, installed: Path, lines: int
) -> None:
    with subprocess.Popen(
        [installed / "byteback-setup-server", *make_image()], stdout=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        for _ in range(lines):
            running.stdout.readline()
        running.kill()
    set_up(*make_image())
    assert is_all_found(set_up())
    assert FSTAB.read_text().count(str(HOME)) == 1


def test_an_interrupted_image_is_made_anew(set_up: SetUp) -> None:
    IMAGE.with_name(f".{IMAGE.name}.unfinished").write_text("half")
    set_up(*make_image())
    assert not IMAGE.with_name(f".{IMAGE.name}.unfinished").exists()
    assert is_all_found(set_up())


def test_a_file_that_is_no_image_is_kept(set_up: SetUp) -> None:
    IMAGE.write_text("precious")
    before = snapshot_of_machine()
    refused = set_up(*make_image(), check=False)
    assert (refused.status, IMAGE.read_text()) == (2, "precious")
    assert snapshot_of_machine() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--image /var/lib/byteback.img --size 20G"),
        (["--image", IMAGE], "--size"),
        (["--image", IMAGE, "--size", "100M"], "too small"),
        (["--image", "/none/x", "--size", "1G"], "no directory"),
        (["--image", IMAGE, "--directory", "/srv"], "more than one"),
        (["--device", "/dev/null"], "no block device"),
        (["--device", "/dev/none"], "no block device"),
        (["--directory", PLAIN], "not on btrfs"),
        (["--directory", "/none"], "no directory"),
        (["--directory", "/"], "home"),
        (["--admin-key", "/none"], "cannot read"),
    ],
)
def test_refusals_are_clear_and_change_nothing(
    set_up: SetUp, words: list[str | Path], said: str
) -> None:
    PLAIN.mkdir(exist_ok=True)
    before = snapshot_of_machine()
    if words and words[0] == "--admin-key":
        words = make_image(*words)
    refused = set_up(*words, check=False)
    assert refused.status == 2
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert snapshot_of_machine() == before


def test_only_root_may(installed: Path) -> None:
    refused = run_program(
        [
            *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
            *(INTERPRETER, installed / "byteback-setup-server", "--dry-run"),
        ],
        check=False,
    )
    assert refused.status == 2
    assert "only root" in refused.stderr


def test_a_group_of_that_name_is_used(set_up: SetUp) -> None:
    run_program(["groupadd", "byteback"])
    set_up(*make_image())
    assert is_all_found(set_up())


def test_root_seals_snapshots_where_it_prunes(set_up: SetUp) -> None:
    words = ("--image", IMAGE, "--size", "512M", "--mount-point", HOME)
    try:
        SERVER_TOML.unlink(missing_ok=True)
        set_up(*words, "--no-schedule")
        assert not (SERVER_TOML.exists() and "sealed" in SERVER_TOML.read_text())
        SERVER_TOML.unlink(missing_ok=True)
        said = set_up(*words).stdout
        assert f"have root seal snapshots in {SERVER_TOML}" in said
        assert settings.load().sealed
        SERVER_TOML.write_text("sealed = false\n")
        set_up(*words)
        assert not settings.load().sealed, "it is the administrator's"
    finally:
        SERVER_TOML.unlink(missing_ok=True)


def test_an_administrators_key_is_added_once(set_up: SetUp, tmp_path: Path) -> None:
    key = tmp_path / "key"
    run_program(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key, "-C", "me"])
    public = key.with_suffix(".pub")
    set_up(*make_image("--admin-key", public))
    keys = HOME / ".ssh" / "authorized_keys"
    line = keys.read_text()
    assert line.startswith('restrict,command="/')
    assert '/byteback-setup-client-receive --forced" ssh-ed25519 ' in line
    again = set_up("--admin-key", "-", stdin=public.read_text())
    assert is_all_found(again)
    assert keys.read_text() == line
    assert keys.stat().st_uid == pwd.getpwnam("byteback").pw_uid
