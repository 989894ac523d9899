"""The hook that shows a backup logical volumes as they were at one moment.

It needs device mapper, LVM and a machine to spoil: `tests/run --lvm` starts one.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import (
    CONFIGURATION,
    EnrolledClient,
    SshServer,
    enrolled,
    mounted_volume,
)
from tests.integration.hook_runs import HOOKS
from tests.integration.programs import Outcome, run_program

pytestmark = pytest.mark.lvm

GROUP = "group-1.a+b"
MOUNTED = Path("/srv/lvm-mounts")
KINDS = ("ext4", "xfs", "thin")
MIB = 1 << 20


@pytest.fixture(scope="module")
def client(installed: Path, sshd: SshServer) -> Iterator[EnrolledClient]:
    """One client for all tests: in a virtual machine everything takes long."""
    with mounted_volume(2 << 30) as volume, enrolled(installed, volume, sshd) as one:
        for directory in ("pre-backup.d", "finally-backup.d"):
            link = CONFIGURATION / directory / "10-snapshot"
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(HOOKS / "lvm-snapshot")
        yield one


@pytest.fixture(scope="module")
def group(client: EnrolledClient) -> Iterator[None]:
    """A volume group with volumes of each kind, mounted below one directory."""
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as image:
        image.truncate(1 << 30)
        device = run_program(["losetup", "--find", "--show", image.name]).stdout.strip()
        run_program(["vgcreate", "--quiet", GROUP, device])
        # No dmeventd from here, so that one which the hook starts is noticed.
        make = ["lvcreate", "--quiet", "--yes", "--ignoremonitoring"]
        run_program([*make, "--size", "64M", "--name", "ext4-data", GROUP])
        run_program([*make, "--size", "320M", "--name", "xfs-data", GROUP])
        make += ["--type", "thin", "--thinpool", "pool", "--size", "128M"]
        run_program([*make, "--virtualsize", "64M", "--name", "thin-data", GROUP])
        for kind in KINDS:
            program = ["mkfs.xfs", "-q"] if kind == "xfs" else ["mkfs.ext4", "-q"]
            run_program([*program, f"/dev/{GROUP}/{kind}-data"])
            (MOUNTED / kind).mkdir(parents=True)
            run_program(["mount", f"/dev/{GROUP}/{kind}-data", MOUNTED / kind])
        yield
        run_program(["umount", *(MOUNTED / kind for kind in KINDS)])
        run_program(["vgchange", "--activate", "n", GROUP])
        run_program(["losetup", "--detach", device])


@pytest.fixture
def volumes(group: None, client: EnrolledClient) -> Iterator[None]:
    """The volumes with one file each, and nothing left afterwards."""
    for kind in KINDS:
        for path in (MOUNTED / kind).iterdir():
            if path.is_file():
                path.unlink()
        (MOUNTED / kind / "file").write_text("before")
    try:
        yield
    finally:
        for hook in CONFIGURATION.glob("*-backup.d/20-late"):
            hook.unlink()
    assert snapshots() == []
    assert mount_points() == [MOUNTED / kind for kind in KINDS]


def snapshots() -> list[str]:
    return [name for name in volume_names() if name.startswith("byteback-")]


def volume_names() -> list[str]:
    return run_program(["lvs", "--noheadings", "-o", "lv_name", GROUP]).stdout.split()


def mount_points() -> list[Path]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    points = [Path(line.split()[1]) for line in lines]
    return [point for point in points if point.is_relative_to(MOUNTED)]


def name_sources(*kinds: str) -> list[Path]:
    """Have the volumes snapshotted, and say what is to be backed up."""
    paths = [MOUNTED / kind for kind in kinds]
    lines = "".join(f" {path}\n" for path in paths)
    (CONFIGURATION / "lvm-snapshots").write_text(f"# ours\n\n{lines}")
    return paths


def back_up(
    client: EnrolledClient, sources: list[Path], *, private: bool = True
) -> Outcome:
    alone = ["unshare", "--mount", "--propagation", "slave"] if private else []
    chosen = [word for source in sources for word in ("--source", str(source))]
    argv = [*alone, str(client.bin / "byteback-backup"), "--verbose", *chosen]
    return run_program([*argv, "--exclude", "/x", "--retry-delay", "1"], check=False)


def add_hook(script: str, directory: str = "pre-backup.d") -> None:
    """A hook that runs after the snapshots were taken."""
    hook = CONFIGURATION / directory / "20-late"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\n{script}\n")
    hook.chmod(0o755)


def outside(script: str) -> str:
    """Shell words that run a script as the rest of the machine does."""
    return f"nsenter --mount=/proc/1/ns/mnt sh -c '{script}'"


@contextlib.contextmanager
def fuller(free_extents: int) -> Iterator[None]:
    """A group with little room in it."""
    argv = ["vgs", "--noheadings", "-o", "vg_free_count", GROUP]
    free = int(run_program(argv).stdout)
    extents = str(free - free_extents)
    make = ["lvcreate", "--quiet", "--yes", "--extents", extents, "--name", "filler"]
    run_program([*make, GROUP])
    try:
        yield
    finally:
        run_program(["lvremove", "--quiet", "--yes", f"{GROUP}/filler"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_backup_sees_one_moment_under_the_same_path(
    client: EnrolledClient, volumes: None, kind: str
) -> None:
    [path] = sources = name_sources(kind)
    change = outside(f"echo after >{path}/file; echo x >{path}/new; sync")
    add_hook(f"{change}; lvs --noheadings; ! touch {path}/x")
    # Deleted and still open: the file system has something to mend in the snapshot.
    with (path / "open").open("w") as deleted:
        deleted.write("x" * MIB)
        (path / "open").unlink()
        outcome = back_up(client, sources)
    assert outcome.status == 0, outcome
    assert f"byteback-{kind}-data" in outcome.stdout + outcome.stderr
    copy = client.current / path.relative_to("/")
    assert (copy / "file").read_text() == "before"
    assert not (copy / "new").exists()
    assert (path / "file").read_text() == "after\n"
    assert run_program(["pgrep", "dmeventd"], check=False).stdout == ""


def test_several_volumes(client: EnrolledClient, volumes: None) -> None:
    sources = name_sources(*KINDS)
    changes = "; ".join(f"echo after >{path}/file" for path in sources)
    add_hook(outside(changes))
    # As little room as there may be for two snapshots with a copy-on-write area.
    with fuller(16):
        outcome = back_up(client, sources)
    assert outcome.status == 0, outcome
    for path in sources:
        assert (path / "file").read_text() == "after\n"
        copy = client.current / path.relative_to("/") / "file"
        assert copy.read_text() == "before"


def test_the_snapshot_goes_whatever_happens(
    client: EnrolledClient, volumes: None
) -> None:
    sources = name_sources("ext4", "thin")
    add_hook("exit 1")
    assert back_up(client, sources).status == 13
    assert snapshots() == []
    # Killed, and no hook could run: the next backup clears up, whatever it is to do.
    add_hook("kill -KILL $PPID; sleep 1")
    assert back_up(client, sources).status != 0
    assert snapshots() == ["byteback-ext4-data", "byteback-thin-data"]
    # After a start of the machine there must be one file system of the thin one's UUID.
    skipped = ["-S", "skip_activation=1", GROUP]
    names = run_program(["lvs", "--noheadings", "-o", "lv_name", *skipped]).stdout
    assert names.split() == ["byteback-thin-data"]
    add_hook("exit 0")
    sources = name_sources("ext4")
    assert back_up(client, sources).status == 0
    assert snapshots() == []


def test_volumes_that_the_hook_did_not_make_stay(
    client: EnrolledClient, volumes: None
) -> None:
    sources = name_sources("ext4", "thin")
    theirs = f"{GROUP}/byteback-thin-data"
    make = ["lvcreate", "--quiet", "--yes", "--snapshot", "--addtag", "byteback"]
    make += ["--ignoremonitoring", "--name", "byteback-thin-data"]
    run_program([*make, f"{GROUP}/thin-data"])
    try:
        # The name is taken when the first volume has its snapshot already.
        outcome = back_up(client, sources)
        left = snapshots()
    finally:
        run_program(["lvremove", "--quiet", "--yes", theirs])
    assert outcome.status == 13
    assert f"cannot make a snapshot of '{GROUP}/thin-data'" in outcome.stderr
    assert left == ["byteback-thin-data"]


def test_a_mount_that_fails_leaves_nothing(
    client: EnrolledClient, volumes: None
) -> None:
    sources = name_sources("ext4", "thin")
    failing = Path("/usr/local/sbin/mount")  # what hooks find first
    failing.write_text(
        '#!/bin/sh\ncase "$*" in *byteback-thin*) exit 32 ;; esac\n'
        'exec /usr/bin/mount "$@"\n'
    )
    failing.chmod(0o755)
    try:
        outcome = back_up(client, sources)
    finally:
        failing.unlink()
    assert outcome.status == 13
    assert "failed with status 32" in outcome.stderr


@pytest.mark.parametrize("when", ["pre-backup.d", "post-backup.d"])
def test_a_snapshot_that_ran_full_fails_the_backup(
    client: EnrolledClient, volumes: None, when: str
) -> None:
    [path] = sources = name_sources("ext4")
    add_hook(outside(f"head -c 20M /dev/urandom >{path}/large; sync"), when)
    with fuller(2):
        outcome = back_up(client, sources)
    assert outcome.status in ((13,) if when == "post-backup.d" else (3, 13))
    said = outcome.stdout + outcome.stderr
    assert f"ran full during the backup, of: {GROUP}/ext4-data" in said
    with fuller(0):
        outcome = back_up(client, sources)
    assert outcome.status == 13
    assert "free space in the volume group" in outcome.stdout + outcome.stderr


def test_what_is_no_volume_is_refused(client: EnrolledClient, volumes: None) -> None:
    sources = name_sources("ext4", "../tmpfs")
    place = MOUNTED.parent / "tmpfs"
    place.mkdir()
    (CONFIGURATION / "lvm-snapshots").write_text(f"{sources[0]}\n{place}\n")
    add_hook("echo too far")
    outcome = back_up(client, [sources[0], place])
    assert (outcome.status, "is no mount point" in outcome.stderr) == (13, True)
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as image:
        image.truncate(8 * MIB)
        run_program(["mkfs.ext4", "-q", image.name])
        for mount, complaint in (
            (["-t", "tmpfs", "none"], "is neither ext2, ext3, ext4 nor xfs, but tmpfs"),
            (["-o", "loop", image.name], "is no logical volume"),
        ):
            run_program(["mount", *mount, place])
            try:
                outcome = back_up(client, [sources[0], place])
            finally:
                run_program(["umount", place])
            assert outcome.status == 13
            assert f"'{place}' {complaint}" in outcome.stderr
            assert "too far" not in outcome.stdout + outcome.stderr
            assert "byteback-ext4-data" not in outcome.stdout + outcome.stderr
    place.rmdir()


def test_what_a_snapshot_would_leave_out_is_refused(
    client: EnrolledClient, volumes: None
) -> None:
    sources = name_sources("ext4")
    outcome = back_up(client, sources, private=False)
    assert outcome.status == 13
    assert "unshare --mount byteback-backup" in outcome.stderr
    inner = sources[0] / "lower"
    inner.mkdir(exist_ok=True)
    run_program(["mount", "-t", "tmpfs", "none", inner])
    try:
        outcome = back_up(client, sources)
    finally:
        run_program(["umount", inner])
    assert (outcome.status, "mounts below" in outcome.stderr) == (13, True)
    (CONFIGURATION / "lvm-snapshots").write_text("/\n")
    assert "below /" in back_up(client, sources).stderr
