"""A whole Debian, and all that is hard in a file system, come back exactly."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from byteback.client.backup import selections
from tests.integration.conftest import LAUNCHERS, LIBRARY, EnrolledClient
from tests.integration.programs import (
    Outcome,
    do_without,
    require_program,
    run_program,
)
from tests.integration.source_tree import (
    Entry,
    describe,
    differences,
    make_source_tree,
)

pytestmark = pytest.mark.whole_system

# Made by `tests/debian bookworm`, before the copy of the machine is.
DEBIAN = Path("/var/cache/byteback-tests/debian/bookworm/root")
MIB = 1 << 20
# What a backup leaves the contents of out: other file systems, and what is made anew.
EMPTIED = (
    "proc",
    "run",
    "tmp",
    "var/tmp",
    "var/cache/apt/archives/partial",
    "media/stick",
)
TIMES_NS = {
    "before Unix": -1_000_000_000_123_456_789,  # 1938
    "just before 1970": -1,
    "the beginning": 0,
    "the end of 32 bits": (1 << 31) * 10**9 + 999_999_999,  # 2038
    "far away": (1 << 33) * 10**9 + 1,  # 2242
}
# Setuid where Debian has it, and a capability of our own: neither may be lost.
SETUID = Path("usr/bin/su")
CAPABLE = Path("usr/local/bin/capable")


@pytest.fixture
def volume_size() -> int:
    return 8 << 30


@pytest.fixture
def disc(tmp_path: Path) -> Iterator[Path]:
    """A file system that has everything, which the machine's overlay has not."""
    require_program("mkfs.btrfs")
    mounted = tmp_path / "disc"
    mounted.mkdir()
    # Not in /tmp, which is the memory.
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as image:
        image.truncate(6 << 30)
        run_program(["mkfs.btrfs", "--quiet", image.name])
        run_program(["mount", "-o", "loop,noatime", image.name, mounted])
    try:
        yield mounted
    finally:
        run_program(["umount", "--recursive", mounted])


@pytest.fixture
def system(disc: Path, enrolled_client: EnrolledClient) -> Iterator[Path]:
    """A Debian that is a client of the server, with everything that is hard in it."""
    if not DEBIAN.exists():
        do_without("needs a Debian to back up: run tests/debian bookworm")
    root = disc / "system"
    run_program(["cp", "--archive", DEBIAN, root], timeout_s=600)
    root.chmod(0o755)
    run_program(["mount", "--bind", root, root])  # a root is a mount point
    run_program(["mount", "-t", "proc", "proc", root / "proc"])
    run_program(["mount", "-t", "tmpfs", "run", root / "run"])
    for name in ("byteback", "scratch"):
        (root / "run" / name).mkdir(mode=0o700)
    make_hard(root)
    become_client(root, enrolled_client)
    try:
        yield root
    finally:
        run_program(["chattr", "-i", root / "srv/immutable"])


# What a backup itself notes when all is sent, and the record, which is never sent.
OWN_NOTES = (
    "var/cache/byteback/record",
    *("var/lib/byteback/attributes-checked", "var/lib/byteback/last-backup"),
)


def become_client(root: Path, client: EnrolledClient) -> None:
    """Byteback and its settings, as on the machine that was enrolled."""
    for place in (LIBRARY, client.configuration):
        shutil.copytree(place, root / place.relative_to("/"), symlinks=True)
    (root / "etc/byteback/key").chmod(0o600)
    for launcher in LAUNCHERS.glob("byteback-*"):
        (root / launcher.relative_to("/")).symlink_to(launcher.readlink())


def make_hard(root: Path) -> None:
    """Everything that a file system can hold and a backup can lose."""
    make_source_tree(root / "srv/hard")
    make_names(root / "srv/names")
    make_times(root / "srv/times")
    make_links(root / "srv/links")
    make_attributes(root / "srv/attributes")
    shutil.copy(root / "usr/bin/true", root / CAPABLE)
    run_program(["setcap", "cap_net_raw,cap_sys_admin+ep", root / CAPABLE])
    for emptied in EMPTIED:
        (root / emptied).mkdir(parents=True, exist_ok=True)
    run_program(["mount", "-t", "tmpfs", "stick", root / "media/stick"])
    (root / "media/stick/not backed up").touch()
    (root / "var/cache/apt/archives/partial/some.deb").touch()
    immutable = root / "srv/immutable"
    immutable.write_text("nobody may change it")
    run_program(["chattr", "+i", immutable])


def make_names(directory: Path) -> None:
    """A file for each byte that a name can have, the longest name, the deepest path."""
    directory.mkdir()
    for byte in set(range(1, 256)) - {ord("/"), ord(".")}:
        (directory / os.fsdecode(bytes([byte]))).write_bytes(bytes([byte]))
    every = bytes(set(range(1, 256)) - {ord("/")})
    (directory / os.fsdecode(every)).mkdir()
    (directory / ("\N{SNOWMAN}" * 85)).touch()
    deep = directory / "deep"
    while len(os.fsencode(deep)) < 3500:
        deep /= "d" * 200
    deep.mkdir(parents=True)
    (deep / "bottom").write_text("at the bottom")


def make_times(directory: Path) -> None:
    """Times with nanoseconds outside of what a 32-bit clock knows; of links, too."""
    directory.mkdir()
    for name, time_ns in TIMES_NS.items():
        (directory / name).write_text(name)
        (directory / f"{name}, directory").mkdir()
        (directory / f"{name}, link").symlink_to(name)
        for path in (name, f"{name}, directory", f"{name}, link"):
            os.utime(directory / path, ns=(time_ns, time_ns), follow_symlinks=False)


def make_links(directory: Path) -> None:
    """Hard links of each kind of file, across directories; loops of symbolic ones."""
    (directory / "one").mkdir(parents=True)
    (directory / "two").mkdir()
    one = directory / "one"
    (one / "file").write_text("twice")
    (one / "link").symlink_to("nowhere/at/all")
    os.mkfifo(one / "fifo")
    os.mknod(one / "device", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(one / "socket"))
    for path in one.iterdir():
        os.link(path, directory / "two" / path.name, follow_symlinks=False)
    (directory / "loop").symlink_to("loop")
    (directory / "long").symlink_to("x/" * 2000)
    (directory / "out").symlink_to("../" * 40 + "etc/shadow")


def make_attributes(directory: Path) -> None:
    """Attributes in all namespaces, on all kinds of files; large and sparse files."""
    directory.mkdir()
    (directory / "file").write_text("x")
    (directory / "directory").mkdir()
    (directory / "link").symlink_to("file")
    os.mkfifo(directory / "fifo")
    os.mknod(directory / "device", stat.S_IFBLK | 0o600, os.makedev(7, 7))
    for path in directory.iterdir():
        for name in ("trusted.byteback", "security.byteback"):
            os.setxattr(path, name, b"\0\xff" * 100, follow_symlinks=False)
    for path in (directory / "file", directory / "directory"):
        os.setxattr(path, "user.empty", b"")
        os.setxattr(path, "user." + "n" * 200, b"x" * 3000)
        run_program(["setfacl", "-m", "u:12345:rwx,g:54321:r,m::rx", path])
    run_program(["setfacl", "-dm", "u:12345:rwx,o::-", directory / "directory"])
    os.chown(directory / "link", 4_000_000_000, 4_000_000_001, follow_symlinks=False)
    with (directory / "sparse").open("wb") as file:
        file.truncate(512 * MIB)
        file.seek(100 * MIB)
        file.write(b"an island")


def manifest(root: Path) -> dict[bytes, Entry]:
    """All that is known of each file, but for what a backup leaves out."""
    left_out = {root / emptied for emptied in EMPTIED}
    paths = [root]
    for place, directories, files in os.walk(root):
        here = Path(place)
        if here in left_out:
            directories.clear()
            continue
        paths += [here / name for name in (*directories, *files)]
    first_names: dict[int, Path] = {}
    for path in sorted(paths):
        first_names.setdefault(path.lstat().st_ino, path.relative_to(root))
    # Of two mount points each has an inode of its own, and both may be number 1.
    for emptied in left_out:
        first_names[emptied.lstat().st_ino] = Path("mounted")
    return {
        os.fsencode(path.relative_to(root)): describe(path, first_names)
        for path in paths
        if path not in left_out
    }


def compare(one: Path, other: Path) -> str:
    """The changes by which rsync would make ``other`` the same as ``one``."""
    argv = ["rsync", "-aAXHn", "--itemize-changes", "--delete", "--checksum"]
    argv += ["--numeric-ids", "--modify-window=-1"]
    argv += [f"--exclude=/{emptied}/*" for emptied in EMPTIED]
    return run_program([*argv, f"{one}/", f"{other}/"]).stdout


def inside(root: Path, *argv: str | Path, check: bool = True) -> Outcome:
    """Run a program in a system; what it writes for a moment changes nothing there."""
    environment = {"HOME": "/root", "TMPDIR": "/run/scratch"}
    return run_program(["chroot", root, *argv], check=check, env=environment)


def test_a_system_comes_back(system: Path, disc: Path) -> None:
    """Backed up from inside, restored from outside: no difference, and it works."""
    # There from the start, for the backup writes them when all is sent.
    (system / "var/lib/byteback").mkdir()
    noted = selections.Note(selections.choose(["/"], None), "2000-01-01T00:00+0000")
    line = json.dumps(dataclasses.asdict(noted))
    (system / "var/lib/byteback/selections").write_text(f"{line}\n")
    (system / "var/lib/byteback/largest-file").write_text(f"{1 << 62}\n")
    inside(system, "byteback-backup")
    target = disc / "restored"
    target.mkdir(mode=0o700)
    run_program([LAUNCHERS / "byteback-restore", "--restore", "/"], cwd=target)
    restored = target / "current"
    for name in OWN_NOTES:
        (system / name).unlink()
        directory = (restored / name).parent.stat()
        os.utime(
            (system / name).parent, ns=(directory.st_atime_ns, directory.st_mtime_ns)
        )
    assert compare(system, restored) == ""
    assert compare(restored, system) == ""
    assert differences(manifest(system), manifest(restored)) == ""
    for emptied in EMPTIED:
        assert list((restored / emptied).iterdir()) == []
    assert (restored / "srv/attributes/sparse").stat().st_blocks < 64
    assert (restored / SETUID).stat().st_mode & stat.S_ISUID
    assert "cap_net_raw" in run_program(["getcap", restored / CAPABLE]).stdout
    # The one thing that is documented not to come back: chattr(1)'s flags.
    assert "i" in run_program(["lsattr", system / "srv/immutable"]).stdout.split()[0]
    assert "i" not in run_program(["lsattr", restored / "srv/immutable"]).stdout[:20]
    try_out(restored)


def try_out(root: Path) -> None:
    """The restored system is one: its files are its packages', its programs run."""
    run_program(["mount", "-t", "proc", "proc", root / "proc"])
    verified = inside(root, "dpkg", "--verify")
    assert (verified.stdout, verified.stderr) == ("", "")
    assert inside(root, "dpkg", "--audit").stdout == ""
    assert inside(root, "python3", "-c", "print(6 * 7)").stdout == "42\n"
    assert inside(root, "su", "nobody", "-s", "/bin/sh", "-c", "id -un").stdout == (
        "nobody\n"
    )
    assert inside(root, "perl", "-e", 'print "perl"').stdout == "perl"
    assert inside(root, "byteback-backup", "--version").stdout
    # It can go on with its backups, as what was backed up.
    assert inside(root, "byteback-backup", "--dry-run").status == 0
