"""Compares a directory with its copy in the store, where metadata is in attributes."""

from __future__ import annotations

import hashlib
import os
import random
import stat
from pathlib import Path

State = dict[str, tuple[object, ...]]  # by path below the top

STAT = "user.rsync.%stat"  # rsync --fake-super: OCTAL-MODE MAJOR,MINOR UID:GID


def read_state(top: Path) -> State:
    """The entries in ``top``: the kind, mode, owner, content and time of each.

    Directories' times are left out: a file that rsync makes in one sets it last.
    """
    state: State = {}
    for directory, directories, names in os.walk(top):
        for name in (*directories, *names):
            path = Path(directory, name)
            state[str(path.relative_to(top))] = _read_entry(path)
    return state


def _read_entry(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    mode, owner = status.st_mode, (status.st_uid, status.st_gid)
    is_copy = False
    if not stat.S_ISLNK(mode):
        try:
            words = os.getxattr(path, STAT).decode().split()
        except OSError:
            pass
        else:
            mode = int(words[0], 8)
            uid, gid = words[2].split(":")
            owner = (int(uid), int(gid))
            is_copy = True
    if stat.S_ISDIR(mode):
        return ("directory", oct(mode), owner)
    if stat.S_ISLNK(mode):
        target = path.read_text() if is_copy else str(path.readlink())
        return ("link", target, owner)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return ("file", oct(mode), owner, status.st_size, digest, status.st_mtime_ns)


def change_at_random(top: Path, dice: random.Random) -> None:
    """Do to a tree what its users may do to it between two backups."""
    for _ in range(dice.randint(3, 8)):
        names = sorted(p for p in top.rglob("*") if p.is_file() and not p.is_symlink())
        action = dice.choice(
            ["new", "new", "edit", "edit", "append", "cut", "odd", "name", "replace"]
        )
        if action == "new" or not names:
            _make_new(top, dice)
            continue
        path = dice.choice(names)
        if action == "edit":  # the same size, perhaps within the same second
            with path.open("r+b") as file:
                file.seek(dice.randint(0, path.stat().st_size))
                file.write(dice.randbytes(min(100, path.stat().st_size - file.tell())))
        elif action == "name":  # one file of two names
            _name_twice(path, dice)
        elif action == "replace":  # as editors do: one file less of two names
            new = path.with_name("new")
            new.write_bytes(dice.randbytes(path.stat().st_size))
            new.replace(path)
        elif action == "append":
            with path.open("ab") as file:
                file.write(dice.randbytes(20_000))
        elif action == "cut":
            os.truncate(path, path.stat().st_size // 2)
        else:
            _do_something_odd(path, dice)


def _make_new(top: Path, dice: random.Random) -> None:
    directory = top / f"d{dice.randint(0, 3)}" / f"e{dice.randint(0, 2)}"
    path = directory / f"f{dice.randint(0, 9)}"
    size = dice.choice([0, 10, 5_000, 300_000])
    directory.mkdir(parents=True, exist_ok=True)
    while path.is_dir():
        path /= "inside"
    path.unlink(missing_ok=True)  # it may be a link
    path.write_bytes(dice.randbytes(size))


def _name_twice(path: Path, dice: random.Random) -> None:
    other = path.with_name(f"g{dice.randint(0, 9)}")
    if path != other and not other.is_dir():
        other.unlink(missing_ok=True)
        other.hardlink_to(path)


def _do_something_odd(path: Path, dice: random.Random) -> None:
    action = dice.choice(["delete", "mode", "link", "directory"])
    if action == "mode":
        path.chmod(dice.choice([0o600, 0o644, 0o4755]))
        return
    path.unlink()
    if action == "link":
        path.symlink_to(f"target-{dice.randint(0, 9)}")
    elif action == "directory":
        path.mkdir()
        (path / "inside").write_bytes(dice.randbytes(1000))
