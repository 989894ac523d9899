"""The right backup: made anew by rsync, and compared byte for byte."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

from byteback.model.rsync_names import plain_name
from tests.integration.record.histories import RULES

OPTIONS = (
    *("--archive", "--acls", "--xattrs", "--hard-links", "--numeric-ids"),
    *("--modify-window=-1", "--inplace", "--relative", "--delete-during"),
    *("--rsync-path=rsync --fake-super", "--out-format=%l %i %n", "--stats"),
)
FULL = ("--delete-excluded", *(rule.format(top="") for rule in RULES))
MAX_RUNS = 9
# rsync stores an ACL that says nothing beyond the mode as an empty one, or as none.
_EMPTY_ACL = ("user.rsync.%aacl", b"\x80\0\0\0" * 4)

Tree = dict[str, tuple[object, ...]]


def remote_shell(directory: Path, user: str | None = None) -> str:
    """A program in place of ssh: it runs the server's rsync here, as ``user``."""
    become = f"setpriv --reuid {user} --regid {user} --clear-groups " if user else ""
    path = directory / "remote-shell"
    path.write_text(f'#!/bin/sh\nshift\nexec {become}sh -c "$*"\n')
    path.chmod(0o755)
    return f"--rsh={shlex.quote(str(path))}"


def run_rsync(words: Sequence[str], source: Path, target: Path) -> tuple[int, str]:
    """rsync's status, and what it printed."""
    done = subprocess.run(
        ["rsync", *OPTIONS, *words, "./", f"here:{target}/"],
        cwd=source,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def push_all(words: Sequence[str], source: Path, target: Path) -> None:
    """Compare everything until nothing is left to do.

    Once is not enough, for rsync loses ACLs that come with other attributes. Names that
    are one file in ``target`` are told apart as the server does it (D34).
    """
    is_separated = False
    for _ in range(MAX_RUNS):
        linked = linked_names(target)
        status, said = run_rsync([*FULL, *words], source, target)
        assert status == 0, said
        if not is_separated and touches(said, linked):
            separate(target)
            is_separated = True
        elif not changed_lines(said):
            return


def changed_lines(said: str) -> list[str]:
    """Lines about names, of what rsync printed."""
    lines = said.partition("\nNumber of files:")[0].splitlines()
    return [line for line in lines if line[:1].isdigit()]


def linked_names(top: Path) -> frozenset[str]:
    """Names of files that have several."""
    found = (Path(p, name) for p, _, names in os.walk(top) for name in names)
    return frozenset(
        str(path.relative_to(top)) for path in found if path.lstat().st_nlink > 1
    )


def touches(said: str, names: frozenset[str]) -> bool:
    """True if rsync changed one of ``names`` that was there before."""
    for line in changed_lines(said):
        _, flags, name = line.split(" ", 2)
        is_change = flags[0] in "<>.c" and flags[1] != "d" and "+" not in flags
        if is_change and plain_name(name) in names:
            return True
    return False


def separate(top: Path) -> None:
    """Remove names of files with several, and have rsync compare all others."""
    for name in linked_names(top):
        (top / name).unlink()
    for place, _, names in os.walk(top):
        for name in names:
            os.utime(Path(place, name), ns=(1, 1))


def read_tree(top: Path) -> Tree:
    """All that is in a directory, as it is on disc."""
    tree: Tree = {}
    first: dict[int, str] = {}
    found = [Path(p, name) for p, d, f in os.walk(top) for name in (*d, *f)]
    for path in (top, *sorted(found)):
        status = path.lstat()
        name = str(path.relative_to(top))
        is_file = stat.S_ISREG(status.st_mode)
        attributes = [
            (key, os.getxattr(path, key, follow_symlinks=False))
            for key in sorted(os.listxattr(path, follow_symlinks=False))
        ]
        tree[name] = (
            oct(status.st_mode),
            status.st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if is_file else "",
            tuple(pair for pair in attributes if pair != _EMPTY_ACL),
            first.setdefault(status.st_ino, name) if is_file else name,
        )
    return tree


def differences(expected: Tree, found: Tree) -> list[str]:
    """One line for each name that is missing, too many or another one."""
    lines = [f"missing: {name!r}" for name in sorted(expected.keys() - found.keys())]
    lines += [f"too many: {name!r}" for name in sorted(found.keys() - expected.keys())]
    for name in sorted(expected.keys() & found.keys()):
        pairs = zip(expected[name], found[name], strict=True)
        odd = [pair for pair in pairs if pair[0] != pair[1]]
        lines += [f"{name!r}: {odd}"] if odd else []
    return lines


def compare(words: Sequence[str], source: Path, target: Path, place: Path) -> list[str]:
    """How ``target`` differs from a new copy of ``source``, which is made at ``place``.

    What rsync itself would leave so in a full push is no difference: it takes some
    ways to write the same ACL for one.
    """
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    shutil.copystat(target, place)
    os.chown(place, target.stat().st_uid, target.stat().st_gid)
    push_all(words, source, place)
    lines = differences(read_tree(place), read_tree(target))
    if lines and all("%aacl" in line for line in lines):
        status, said = run_rsync([*FULL, "--dry-run", *words], source, target)
        assert status == 0, said
        return changed_lines(said) and lines
    return lines
