"""byteback-setup-server on a real machine: user, file systems, mounts, schedule."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from byteback.server import settings
from tests.integration.conftest import INTERPRETER, remove_user, unmount
from tests.integration.programs import Outcome, require_program, run_program

HOME = Path("/srv/byteback")
PLAIN = Path("/srv/plain")  # an empty directory that is on no btrfs
IMAGE = Path("/var/lib/byteback.img")
FSTAB = Path("/etc/fstab")
CRON = Path("/etc/cron.d/byteback-prune")
SERVER_TOML = Path("/etc/byteback/server.toml")
OPTIONS = {"noatime", "user_subvol_rm_allowed"}
SIZE = 512 << 20

SetUp = Callable[..., Outcome]


@pytest.fixture
def set_up(installed: Path) -> Iterator[SetUp]:
    """Runs the program on a machine that holds no store; takes all away afterwards."""
    require_program("mkfs.btrfs")
    before = FSTAB.read_bytes() if FSTAB.exists() else b""

    def run(*words: str | Path, check: bool = True, stdin: str = "") -> Outcome:
        return run_program(
            [installed / "byteback-setup-server", *words], check=check, stdin=stdin
        )

    yield run
    while HOME.is_mount():
        unmount(HOME)
    FSTAB.write_bytes(before)
    remove_user()
    shutil.rmtree(HOME, ignore_errors=True)
    for path in (IMAGE, CRON):
        path.unlink(missing_ok=True)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """An empty block device."""
    disc = tmp_path / "disc"
    with disc.open("xb") as file:
        file.truncate(SIZE)
    loop = run_program(["losetup", "--find", "--show", disc]).stdout.strip()
    try:
        yield Path(loop)
    finally:
        unmount_all(loop)
        run_program(["losetup", "--detach", loop])


def unmount_all(device: str) -> None:
    """Unmount a device from everywhere."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        if line.split()[0] == device:
            run_program(["umount", line.split()[1]])


def options_at(point: Path) -> set[str]:
    """The options of what is mounted on top at ``point``."""
    lines = [
        line.split() for line in Path("/proc/self/mounts").read_text().splitlines()
    ]
    return set([line[3] for line in lines if line[1] == str(point)][-1].split(","))


def snapshot_of_machine() -> list[object]:
    """All that set-up could change, to compare before and after."""
    shown = [Path(path).read_bytes() for path in ("/etc/passwd", "/etc/group", FSTAB)]
    places = (HOME, IMAGE, CRON, Path("/run/byteback"))
    mounts = Path("/proc/self/mounts").read_text()
    return [shown, [os.path.lexists(path) for path in places], mounts]


def is_all_found(outcome: Outcome) -> bool:
    """Whether a run had nothing to do."""
    kinds = {line.split(":")[0] for line in outcome.stdout.splitlines()}
    return "found" in kinds and not {"done", "would"} & kinds


def make_image(*extra: str | Path) -> list[str | Path]:
    return ["--image", IMAGE, "--size", str(SIZE), *extra]


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


def test_a_dry_run_changes_nothing(set_up: SetUp, device: Path) -> None:
    before = snapshot_of_machine()
    for words in (make_image("--dry-run"), ["--device", device, "-n"]):
        assert "would:" in set_up(*words).stdout
    assert snapshot_of_machine() == before
    assert not run_program(["wipefs", "--noheadings", device]).stdout


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
