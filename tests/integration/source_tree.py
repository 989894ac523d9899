"""A directory with every kind of file that a machine may hold, and its description."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from tests.integration.programs import require_program, run_program

NAMES = [
    *(b"plain", b"with space", b"new\nline", b"tab\tin it", b"-leading-dash", b"#hash"),
    *(b"\xff\xfe no utf-8", "schön".encode(), b"a*b?", b"[set]", b"{a,b}", b"trail "),
    *(b"back\\slash", b"quo'\"te", b"$(id)", b"~tilde", b"semi;colon", b".hidden"),
    *(b"a=20b", b"esc\x1b[31m", b"x" * 255),
]
UNKNOWN_OWNER = 3_000_000_000  # above all that a server's user database knows
LONG_AGO_NS = 981_173_106_123_456_789  # in 2001, with nanoseconds
MIB = 1 << 20


@dataclass(frozen=True)
class Entry:
    """All that a backup has to keep of one file, link or directory."""

    mode: str
    owner: tuple[int, int]
    mtime_ns: int
    size: int
    device: int
    target: bytes
    digest: str
    attributes: tuple[tuple[str, bytes], ...]  # ACLs and capabilities included
    first_name: bytes  # of all hard links to it


def make_source_tree(root: Path) -> None:
    """Fill ``root``, which must not exist, with one of everything."""
    root.mkdir(parents=True)
    make_names(root / "names")
    make_kinds(root / "kinds")
    make_rights(root / "rights")
    for path in (root, *root.iterdir()):
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))


def make_names(directory: Path) -> None:
    """Files and directories with awkward names."""
    directory.mkdir()
    for name in NAMES:
        path = directory / os.fsdecode(name)
        path.write_bytes(b"content of " + name)
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    deep = directory / "deep" / " " / "*"
    deep.mkdir(parents=True)
    (deep / "file").write_text("at the bottom\n")


def make_kinds(directory: Path) -> None:
    """Every type of file, empty, large and sparse ones, and links."""
    directory.mkdir()
    (directory / "empty").touch()
    (directory / "empty-directory").mkdir()
    (directory / "large").write_bytes(os.urandom(3 * MIB + 17))
    with (directory / "sparse").open("wb") as sparse:
        sparse.seek(64 * MIB)
        sparse.write(b"the end")
    os.link(directory / "large", directory / "hard link")
    (directory / "link").symlink_to("large")
    (directory / "absolute link").symlink_to("/etc/shadow")
    (directory / "dangling link").symlink_to(b"\xff no such\nfile".decode("latin-1"))
    os.lchown(directory / "dangling link", 12, 34)
    os.mkfifo(directory / "fifo", 0o622)
    os.mknod(directory / "character", stat.S_IFCHR | 0o660, os.makedev(5, 300))
    os.mknod(directory / "block", stat.S_IFBLK | 0o600, os.makedev(259, 70000))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "socket"))


def make_rights(directory: Path) -> None:
    """Modes, owners, ACLs, attributes and capabilities."""
    directory.mkdir()
    for mode in (0o000, 0o400, 0o4755, 0o2755, 0o6711, 0o1777):
        path = directory / f"mode-{mode:04o}"
        path.write_text("x")
        path.chmod(mode)
    (directory / "sticky").mkdir()
    (directory / "sticky").chmod(0o3777)
    stranger = directory / "stranger"
    stranger.write_text("owned by a number")
    os.chown(stranger, UNKNOWN_OWNER, UNKNOWN_OWNER + 1)
    attributed = directory / "attributes"
    attributed.write_text("x")
    os.setxattr(attributed, "user.comment", b"\x00binary\xff")
    os.setxattr(attributed, "trusted.secret", b"root's")
    capable = directory / "capable"
    capable.write_text("x")
    run_program([require_program("setcap"), "cap_net_raw+ep", capable])
    setfacl = require_program("setfacl")
    (directory / "acl").write_text("x")
    run_program([setfacl, "--modify", "user:54321:rw", directory / "acl"])
    (directory / "default acl").mkdir()
    inherited = ["--default", "--modify", "group:54321:rx"]
    run_program([setfacl, *inherited, directory / "default acl"])


def describe_tree(root: Path) -> dict[bytes, Entry]:
    """Every path below ``root``, relative to it, and what it is."""
    paths = [root, *root.rglob("*")]
    first_names: dict[int, Path] = {}
    for path in sorted(paths):
        first_names.setdefault(path.lstat().st_ino, path.relative_to(root))
    return {
        os.fsencode(path.relative_to(root)): describe(path, first_names)
        for path in paths
    }


def describe(path: Path, first_names: dict[int, Path]) -> Entry:
    """One path, never following links."""
    status = path.lstat()
    is_file = stat.S_ISREG(status.st_mode)
    is_device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
    return Entry(
        mode=stat.filemode(status.st_mode),
        owner=(status.st_uid, status.st_gid),
        mtime_ns=status.st_mtime_ns,
        size=status.st_size if is_file else 0,
        device=status.st_rdev if is_device else 0,
        target=os.fsencode(path.readlink()) if path.is_symlink() else b"",
        digest=hashlib.sha256(path.read_bytes() if is_file else b"").hexdigest(),
        attributes=tuple(
            (name, os.getxattr(path, name, follow_symlinks=False))
            for name in sorted(os.listxattr(path, follow_symlinks=False))
        ),
        first_name=os.fsencode(first_names[status.st_ino]),
    )


def differences(expected: dict[bytes, Entry], found: dict[bytes, Entry]) -> str:
    """One line for each path that is missing, too many, or not the same."""
    lines = [f"missing: {path!r}" for path in sorted(expected.keys() - found.keys())]
    lines += [
        f"unexpected: {path!r}" for path in sorted(found.keys() - expected.keys())
    ]
    for path in sorted(expected.keys() & found.keys()):
        for field in Entry.__dataclass_fields__:
            old, new = getattr(expected[path], field), getattr(found[path], field)
            if old != new:
                lines.append(f"{path!r}: {field} was {old!r}, is {new!r}")
    return "\n".join(lines)
