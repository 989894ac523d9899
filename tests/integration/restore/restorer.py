"""Runs byteback-restore for tests, on a tree of all kinds of files."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.conftest import EnrolledClient
from tests.integration.programs import Outcome, require_program, run_program

SOURCE = Path("/home/data")
NAMES = [
    b"plain",
    b"with space",
    b"new\nline",
    b"-dash",
    b"#hash",
    b"\xff\xfe not utf-8",
    "schön".encode(),
    b"a*b",
    b"[set]",
    b"{a,b}",
    b"back\\slash",
    b"quo'\"te",
    b"$(id)",
    b"~tilde",
    b"a:b",
    b"..x",
    b"trailing ",
]
LONG_AGO_NS = 981_173_106_123_456_789  # 2001, with nanoseconds


@dataclass(frozen=True)
class Restorer:
    """byteback-restore on the enrolled client."""

    client: EnrolledClient
    work: Path  # where it is run

    def run(
        self, *words: str | Path, check: bool = True, cwd: Path | None = None
    ) -> Outcome:
        """Run it and return how it ended."""
        program = self.client.bin / "byteback-restore"
        return run_program([program, *words], check=check, cwd=cwd or self.work)

    def entries(self, *words: str | Path) -> list[dict[str, Any]]:
        """The names that it lists, from --json."""
        outcome = self.run("--json", *words)
        return [json.loads(line) for line in outcome.stdout.splitlines()]

    def backup(self) -> None:
        """Back up SOURCE, and /etc/hosts."""
        run_program(
            [
                *(self.client.bin / "byteback-backup", "--source", SOURCE),
                *("--source", "/etc/hosts"),
            ]
        )

    def snapshot(self, name: str) -> None:
        """A snapshot of current with a name of the test's choice."""
        current = self.client.current
        run_program(
            [
                *("runuser", "-u", self.client.user.name, "--", "btrfs", "subvolume"),
                *("snapshot", "-r", current, current.parent / name),
            ]
        )


def make_names(directory: Path) -> None:
    """Files whose names break whatever splits at spaces or lines, or knows globs."""
    directory.mkdir()
    for name in NAMES:
        (directory / os.fsdecode(name)).write_bytes(name)


def make_kinds(directory: Path) -> None:
    """One of each kind of file."""
    directory.mkdir()
    (directory / "file").write_bytes(b"x" * 100_000)
    (directory / "empty").touch()
    (directory / "hard").hardlink_to(directory / "file")
    (directory / "link").symlink_to("file")
    (directory / "dangling").symlink_to(os.fsdecode(b"no/such \xff\n"))
    (directory / "emptydir").mkdir(mode=0o700)
    os.mkfifo(directory / "fifo", 0o640)
    os.mknod(directory / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(directory / "disc", stat.S_IFBLK | 0o660, os.makedev(7, 300))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "socket"))
    with (directory / "sparse").open("wb") as file:
        file.truncate(8 << 20)
        file.seek(4 << 20)
        file.write(b"in the middle")


def make_metadata(directory: Path) -> None:
    """Owners that the server does not know, odd modes, ACLs, attributes, times."""
    directory.mkdir()
    for name, mode in (("setuid", 0o4755), ("secret", 0o000), ("sticky", 0o3770)):
        path = directory / name
        path.mkdir() if name == "sticky" else path.write_text(name)
        os.chown(path, 54321, 65432)
        path.chmod(mode)
    shared = directory / "shared"
    shared.mkdir()
    shared.chmod(0o3770)
    run_program(["setfacl", "-m", "g:54321:rwx", shared])
    acl = directory / "acl"
    acl.write_text("acl")
    run_program(["setfacl", "-m", "u:12345:r--,g:54321:rw-", acl])
    (directory / "inherit").mkdir()
    run_program(["setfacl", "-d", "-m", "u:12345:rwx", directory / "inherit"])
    os.setxattr(directory / "inherit", "user.note", b"rsync drops one or the other")
    os.setxattr(acl, "user.note", b"with\0nul")
    os.setxattr(acl, "trusted.note", b"root's")
    shutil.copy("/bin/true", directory / "capable")
    run_program([require_program("setcap"), "cap_net_raw+ep", directory / "capable"])
    old = directory / "old"
    old.write_text("old")
    for path in (old, directory / "sticky", directory):
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))


def describe(top: Path) -> dict[str, dict[str, Any]]:
    """All that can be known about each file below ``top``, by relative name."""
    found = {}
    links: dict[int, str] = {}
    paths = [top, *(Path(d) / n for d, ds, fs in os.walk(top) for n in ds + fs)]
    for path in sorted(paths):
        status = path.lstat()
        name = str(path.relative_to(top))
        is_file = stat.S_ISREG(status.st_mode)
        found[name] = {
            "mode": oct(status.st_mode),
            "owner": (status.st_uid, status.st_gid),
            "mtime_ns": status.st_mtime_ns,
            "device": status.st_rdev,
            "target": str(path.readlink()) if path.is_symlink() else None,
            "content": path.read_bytes() if is_file else None,
            "same as": links.setdefault(status.st_ino, name),
            "attributes": {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
            },
        }
    return found
