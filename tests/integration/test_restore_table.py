"""Each type of file in the backup over each type that has its name now, old and new."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.integration.conftest import EnrolledClient
from tests.integration.programs import Outcome, run_program

TREE = Path("/home/data")
BACKED_UP_NS = 1_700_000_000_500_000_000
# How much later than its backup a thing was changed.
AGES = {
    "older": -3600 * 10**9,
    "a moment older": -1,
    "a moment newer": 1,
    "newer": 3600 * 10**9,
}
IN_BACKUP = (
    *("file", "empty", "directory", "full directory", "link", "fifo", "device"),
    *("socket", "one of two"),
)
THERE_NOW = (*IN_BACKUP[:-1], "one of two", "nothing")
TWIN, MATE = ".twin", ".mate"


class Case(NamedTuple):
    """A name in the tree, what it is in the backup, and what has it now."""

    backup: str
    now: str
    age: str

    @property
    def path(self) -> Path:
        return TREE / ", ".join(self)

    @property
    def is_newer(self) -> bool:
        return self.now != "nothing" and AGES[self.age] > 0

    @property
    def is_merged(self) -> bool:
        return "directory" in self.backup and "directory" in self.now

    @property
    def is_blocked(self) -> bool:
        return "directory" not in self.backup and self.now == "full directory"

    def is_kept(self, *, keep_newer: bool) -> bool:
        return self.is_newer and keep_newer


CASES = [
    Case(*words)
    for words in itertools.product(IN_BACKUP, THERE_NOW, AGES)
    if words[1] != "nothing" or words[2] == "older"
]


class Entry(NamedTuple):
    """All that can be seen of one name."""

    mode: int
    device: int
    content: bytes | str | None
    mtime_ns: int
    inode: int

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def itself(self) -> tuple[object, ...]:
        """All but which file it is."""
        return self[:-1]

    @property
    def contents(self) -> tuple[object, ...]:
        """The differences that make it another file, not one with another owner.

        A file of another time has other contents, for all that rsync knows.
        """
        is_file = stat.S_ISREG(self.mode)
        time = self.mtime_ns if is_file else 0
        return stat.S_IFMT(self.mode), self.device, self.content, time


Tree = dict[str, Entry]


def read_tree() -> Tree:
    found = {}
    for path in (TREE, *TREE.rglob("*")):
        status = path.lstat()
        content: bytes | str | None = None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = str(path.readlink())
        found[str(path)[1:]] = Entry(
            *(status.st_mode, status.st_rdev, content, status.st_mtime_ns),
            status.st_ino,
        )
    return found


def make(path: Path, kind: str, *, text: str, mtime_ns: int) -> None:
    """Give ``path`` a thing of the kind; ``text`` tells two of them apart."""
    if kind in ("file", "one of two"):
        path.write_text(text)
    elif kind == "empty":
        path.touch()
    elif "directory" in kind:
        path.mkdir()
        if kind.startswith("full"):
            (path / "inner").write_text(text)
            os.utime(path / "inner", ns=(0, BACKED_UP_NS - len(text) * 10**9))
            (path / f"of {text}").touch()
    elif kind == "link":
        path.symlink_to(text)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        number = 3 if text == "backup" else 5
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, number))
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.relpath(path))
    if kind != "link":
        path.chmod(0o750 if text == "backup" else 0o705)
    os.utime(path, ns=(0, mtime_ns), follow_symlinks=False)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def make_backup_tree() -> None:
    """All cases, as they are backed up."""
    for case in CASES:
        make(case.path, case.backup, text="backup", mtime_ns=BACKED_UP_NS)
        if case.backup == "one of two":
            case.path.with_name(case.path.name + TWIN).hardlink_to(case.path)
    os.utime(TREE, ns=(0, BACKED_UP_NS))


def make_what_is_there_now() -> None:
    """All cases, as their age and type were changed since."""
    for case in CASES:
        remove(case.path)
        if case.now == "nothing":
            continue
        mtime_ns = BACKED_UP_NS + AGES[case.age]
        make(case.path, case.now, text="machine", mtime_ns=mtime_ns)
        if case.now == "one of two":
            case.path.with_name(case.path.name + MATE).hardlink_to(case.path)
    os.utime(TREE, ns=(0, BACKED_UP_NS - 1))


@dataclass(frozen=True)
class Restorer:
    """A client whose backup has all cases, and whose machine has all others."""

    client: EnrolledClient
    backup: Tree

    def run(self, *words: str) -> Outcome:
        program = self.client.bin / "byteback-restore"
        argv: list[str | Path] = [program, "-r", "--in-place", *words, TREE]
        return run_program(argv, check=False)


@pytest.fixture
def restorer(
    enrolled_client: EnrolledClient, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Restorer]:
    shutil.rmtree(TREE, ignore_errors=True)
    TREE.mkdir(parents=True)
    monkeypatch.chdir(TREE)
    try:
        make_backup_tree()
        run_program([enrolled_client.bin / "byteback-backup", "--source", TREE])
        backup = read_tree()
        make_what_is_there_now()
        yield Restorer(enrolled_client, backup)
    finally:
        monkeypatch.undo()
        shutil.rmtree(TREE, ignore_errors=True)


def foretold(outcome: Outcome) -> set[tuple[str, str]]:
    """The lines of a dry run, but for what stays."""
    lines = [line.split(None, 1) for line in outcome.stdout.splitlines()]
    return {(action, name.rstrip("/")) for action, name in lines if action != "keep"}


def kept_of(dry: Outcome) -> set[str]:
    """The names that a dry run says will stay as they are."""
    lines = [line.split(None, 1) for line in dry.stdout.splitlines()]
    return {name.rstrip("/") for action, name in lines if action == "keep"}


def done(before: Tree, after: Tree) -> set[tuple[str, str]]:
    """The changes, in the words of a dry run."""
    found = set()
    for name, entry in after.items():
        if name not in before:
            found.add(("create", name))
        elif entry.contents != before[name].contents:
            found.add(("replace", name))
        elif entry.itself != before[name].itself:
            found.add(("adjust", name))
    return found


def below(name: str, tree: Tree) -> dict[str, tuple[object, ...]]:
    """The entries of a directory."""
    start = f"{name}/"
    return {n: entry.itself for n, entry in tree.items() if n.startswith(start)}


def check_case(
    case: Case, backup: Tree, before: Tree, after: Tree, *, keep_newer: bool
) -> None:
    name = str(case.path)[1:]
    if case.is_kept(keep_newer=keep_newer) and case.is_merged:
        assert after[name].mode == before[name].mode
        assert after[name].mtime_ns >= before[name].mtime_ns
        assert below(name, backup).items() <= below(name, after).items()
    elif case.is_kept(keep_newer=keep_newer) or case.is_blocked:
        assert after[name] == before[name]
        assert below(name, after) == below(name, before)
    else:
        assert after[name].itself == backup[name].itself
        assert below(name, backup).items() <= below(name, after).items()
        if case.backup == "one of two":
            assert after[name].inode == after[name + TWIN].inode
    if case.backup == "one of two":
        assert after[name + TWIN].itself == backup[name + TWIN].itself
    if case.now == "one of two":
        assert after[name + MATE] == before[name + MATE]


@pytest.mark.parametrize("keep_newer", [False, True])
def test_every_type_over_every_other(restorer: Restorer, *, keep_newer: bool) -> None:
    """It is as in the backup, or untouched; and as the dry run said beforehand."""
    before = read_tree()
    options = ["--keep-newer"] if keep_newer else []
    dry = restorer.run("--dry-run", *options)
    assert read_tree() == before
    run = restorer.run("--yes", *options)
    after = read_tree()
    wrong = []
    for case in CASES:
        try:
            check_case(case, restorer.backup, before, after, keep_newer=keep_newer)
        except (AssertionError, KeyError) as error:
            wrong.append(f"{case}: {type(error).__name__} {error}")
    assert not wrong, "\n".join([*wrong, run.stderr])

    # Which of the names are one file is no matter of contents: rsync may find out
    # only when it has replaced the other one.
    apart = {one for one in foretold(dry) if one[1].endswith(TWIN)}
    # A directory that is kept gets the time at which something came into it.
    entered = {("adjust", name) for name in kept_of(dry)}
    assert foretold(dry) - apart == done(before, after) - apart - entered
    blocked = [
        case
        for case in CASES
        if case.is_blocked and not case.is_kept(keep_newer=keep_newer)
    ]
    for outcome in (dry, run):
        assert outcome.status == 3
        told = [li for li in outcome.stderr.splitlines() if "not restored: " in li]
        assert len(told) == len(blocked)
        assert all(any(f"'{case.path}'" in li for li in told) for case in blocked)
    assert kept_of(dry) == {
        str(case.path)[1:] for case in CASES if case.is_kept(keep_newer=keep_newer)
    }

    again = restorer.run("--dry-run", *options)
    assert foretold(again) == set(), "a second run finds nothing more to do"
