"""Attacks of a taken-over store's user on a sealed snapshot."""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from byteback.server.snapshots import seal
from byteback.system.btrfs import subvolume
from tests.integration.conftest import ServerUser
from tests.integration.programs import Outcome, run_program
from tests.integration.sealing.store import HOST, STAT, opened


def in_child_of(user: ServerUser, attack: Callable[[], object]) -> str:
    """Do ``attack`` as the user for good; how it ended. Its effects count, not this."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer = "crashed"
        try:
            os.setgroups([user.gid])
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
            answer = f"done: {attack()}"
        except OSError as error:
            answer = f"{error}"
        finally:
            os.write(writer, answer.encode()[:4000])
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = stream.read().decode()
    os.waitpid(pid, 0)
    assert answer != "crashed"
    return answer


def set_flags(path: Path) -> None:
    with opened(path) as fd:
        fcntl.ioctl(fd, subvolume._SET_FLAGS, subvolume._FLAGS.pack(0))


def delete_by_number(path: Path, number: int) -> None:
    run_program(
        ["btrfs", "subvolume", "delete", "--subvolid", str(number), path.parent],
        check=False,
    )


def mount_over(path: Path) -> None:
    steps = [
        f"btrfs property set {path} ro false",
        f"mount --bind {path} {path}; mount -o remount,bind,rw {path}",
        f"chown 0 {path}; chmod 777 {path}; setfattr -x {seal.ATTRIBUTE} {path}",
        f"mount --bind {path}/etc /mnt; echo evil >/mnt/file; rm -rf /mnt/*",
        f"mount -t tmpfs tmpfs {path}; rm -rf {path}; umount {path}; rmdir {path}",
    ]
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    run_program([*unshare, "\n".join(steps)], check=False)


def run(*argv: str | Path) -> Outcome:
    return run_program(argv, check=False)


def replace_by_link(path: Path) -> None:
    path.rename(path.with_name("gone"))
    path.symlink_to("/etc")


def link_of_host(path: Path) -> None:
    path.parent.rename(path.parent.with_name(".gone"))
    path.parent.symlink_to("/srv")


Attack = Callable[[Path, Path], object]  # a sealed snapshot, another client's directory


ATTACKS: dict[str, Attack] = {
    "property set": lambda path, _: run(
        "btrfs", "property", "set", path, "ro", "false"
    ),
    "ioctl": lambda path, _: set_flags(path),
    "subvolume delete": lambda path, _: run("btrfs", "subvolume", "delete", path),
    "snapshot": lambda path, _: run(
        *("btrfs", "subvolume", "snapshot", path, path.parent / "clone")
    ),
    "rm": lambda path, _: run("rm", "-rf", path),
    "rmdir": lambda path, _: path.rmdir(),
    "rename elsewhere": lambda path, other: path.rename(other / path.name),
    "rename deeper": lambda path, _: path.rename(path.parent / "current" / "x"),
    "exchange elsewhere": lambda path, other: ctypes.CDLL(None).renameat2(
        -100, bytes(path), -100, bytes(other / "current"), 2
    ),
    "rename over": lambda path, _: (path.parent / "empty").rename(path),
    "chmod": lambda path, _: path.chmod(0o777),
    "chown": lambda path, _: os.chown(path, os.getuid(), os.getgid()),
    "note": lambda path, _: os.setxattr(path, STAT, b"x"),
    "false mark": lambda path, _: os.setxattr(path, seal.ATTRIBUTE, b"b/x"),
    "remove mark": lambda path, _: os.removexattr(path, seal.ATTRIBUTE),
    "acl": lambda path, _: run("setfacl", "-m", f"u:{os.getuid()}:rwx", path),
    "times": lambda path, _: os.utime(path, (0, 0)),
    "truncate": lambda path, _: os.truncate(path / "etc" / "file", 0),
    "write": lambda path, _: (path / "etc" / "file").write_bytes(b"evil"),
    "chmod inside": lambda path, _: (path / "etc" / "file").chmod(0),
    "create inside": lambda path, _: (path / "etc" / "new").touch(),
    "unlink inside": lambda path, _: (path / "etc" / "file").unlink(),
    "hard link": lambda path, _: os.link(path / "etc" / "file", path.parent / "l"),
    "mounts": lambda path, _: mount_over(path),
    "own pruning": lambda *_: run("byteback-prune", "--prune-force"),
    "own discard": lambda *_: run("byteback-prune", "--discard", HOST),
}
