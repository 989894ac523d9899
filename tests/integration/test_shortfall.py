"""Files that a transfer cannot send or store: told, mended, or both."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import EnrolledClient, find_user, unmount
from tests.integration.programs import Outcome, run_program

STAT = "user.rsync.%stat"
NO_RETRY = ("--retry-number", "0")
CHECKED = Path("/var/lib/byteback/attributes-checked")


@pytest.fixture
def source() -> Iterator[Path]:
    """A directory for a client's files."""
    with tempfile.TemporaryDirectory(prefix="source-", dir="/srv") as directory:
        yield Path(directory)


def backup(client: EnrolledClient, *words: str | Path, expect: int = 0) -> Outcome:
    program = client.bin / "byteback-backup"
    outcome = run_program([program, *words], check=False)
    assert outcome.status == expect, outcome
    return outcome


def copy_of(client: EnrolledClient, path: Path) -> Path:
    return client.current / path.relative_to("/")


# --- Damaged attributes ------------------------------------------------------------


@pytest.fixture
def damaged(enrolled_client: EnrolledClient, source: Path) -> EnrolledClient:
    """A client with notes in its ``current`` that rsync cannot read."""
    for name in ("a", "b", "below/c", "below/d"):
        path = source / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"contents of {name}")
        path.chmod(0o640)
    (source / "link").symlink_to("a")
    backup(enrolled_client, "--source", source)
    for name, value in {
        "a": b"100640 0,0",
        "below/c": b"",
        "below": b"\xff" * 14,
        "link": b"120777 0,0 0:x",
    }.items():
        os.setxattr(copy_of(enrolled_client, source / name), STAT, value)
    # A damaged copy has other contents as well, though its size and time are right.
    copy = copy_of(enrolled_client, source / "below/c")
    status = copy.stat()
    copy.write_text("CONTENTS OF below/c")
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
    return enrolled_client


def test_damaged_attributes_are_mended_at_once(
    damaged: EnrolledClient, source: Path
) -> None:
    (source / "new").write_text("new")
    outcome = backup(damaged, "--source", source, *NO_RETRY)
    assert (outcome.stdout, outcome.stderr) == ("", "")
    for name in ("a", "b", "below/c", "below/d", "new"):
        copy = copy_of(damaged, source / name)
        assert copy.read_text() == (source / name).read_text()
    user = find_user()
    for name, mode in {"a": "100640", "below/c": "100640", "link": "120777"}.items():
        noted = os.getxattr(copy_of(damaged, source / name), STAT)
        assert noted == f"{mode} 0,0 0:0".encode()
    assert os.getxattr(copy_of(damaged, source / "below"), STAT) == b"40755 0,0 0:0"
    assert copy_of(damaged, source / "link").read_text() == "a"
    assert copy_of(damaged, source / "a").stat().st_uid == user.uid
    # It is mended once, and not looked for ever after.
    assert not list((damaged.store / ".byteback/hosts").glob("*.damaged"))


def test_a_dry_run_mends_nothing_and_says_what_will(
    damaged: EnrolledClient, source: Path
) -> None:
    outcome = backup(damaged, "--source", source, "--dry-run", expect=75)
    assert "hint: a backup has the server mend it" in outcome.stderr
    assert f"Corrupt {STAT} xattr attached to" in outcome.stderr
    assert os.getxattr(copy_of(damaged, source / "a"), STAT) == b"100640 0,0"


# --- Paths that are too long -------------------------------------------------------


@pytest.fixture
def too_deep(source: Path) -> Iterator[Path]:
    """A directory in ``source`` with a file whose path no system call takes."""
    top = source / "deep"
    top.mkdir()
    name = "x" * 250
    fd = os.open(top, os.O_RDONLY)
    for _ in range(17):
        os.mkdir(name, dir_fd=fd)
        above, fd = fd, os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(above)
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    yield top
    run_program(["rm", "-rf", top])


def test_a_path_that_is_too_long_is_named(
    enrolled_client: EnrolledClient, source: Path, too_deep: Path
) -> None:
    (source / "z").mkdir()
    (source / "z/old").write_text("old")
    outcome = backup(enrolled_client, "--source", source, expect=3)
    assert "the backup is done, but some files could not be read" in outcome.stderr
    assert f": {too_deep}/xxx" in outcome.stderr
    (source / "z/old").unlink()
    outcome = backup(enrolled_client, "--source", source, *NO_RETRY, expect=3)
    first, *_, last = outcome.stderr.splitlines()
    assert first.endswith(", and so files that were deleted here were kept in it")
    assert f": {too_deep}/xxx" in last
    assert len(last) < 500
    assert copy_of(enrolled_client, source / "z/old").exists()
    # Excluded, it is in nobody's way.
    excludes = enrolled_client.configuration / "excludes"
    excludes.write_text(f"{too_deep}\n")
    backup(enrolled_client, "--source", source)
    assert not copy_of(enrolled_client, source / "z/old").exists()
    assert not copy_of(enrolled_client, too_deep).exists()


# --- Attributes of rsync's own -----------------------------------------------------


def test_attributes_that_no_backup_keeps_are_told_once(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    CHECKED.unlink(missing_ok=True)
    for name in ("a", "b", "store/c"):
        path = source / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    os.setxattr(source / "a", STAT, b"104777 0,0 5:6")
    os.setxattr(source / "store/c", STAT, b"100644 0,0 0:0")
    (enrolled_client.configuration / "excludes").write_text(f"{source}/store/\n")
    words = ("--source", source)
    outcome = backup(enrolled_client, *words, expect=3)
    first, hint, *names = outcome.stderr.splitlines()
    assert first.endswith(
        "the backup is done, but one file has attributes that no backup keeps"
    )
    assert "byteback(7)" in hint
    assert names == [f"  {source}/a"]
    # Nor does the server take the client's attribute for its own note.
    noted = os.getxattr(copy_of(enrolled_client, source / "a"), STAT)
    assert noted == b"100644 0,0 0:0"
    restore = enrolled_client.bin / "byteback-restore"
    shown = run_program([restore, "--verify"], check=False)
    assert shown.status == 3
    assert f"{source}/a" in shown.stderr
    # Once told it is known, until it is sent again.
    backup(enrolled_client, *words)
    (source / "a").write_text("changed")
    outcome = backup(enrolled_client, *words, expect=3)
    assert f"  {source}/a" in outcome.stderr
    os.removexattr(source / "a", STAT)
    backup(enrolled_client, *words)
    run_program([restore, "--verify"])


# --- More names than btrfs allows a file -------------------------------------------

MOST_NAMES = 65_535  # of a file on btrfs; tmpfs has no limit


@pytest.fixture
def linked(source: Path) -> Iterator[Path]:
    """A directory with more names of one file, spread over directories."""
    run_program(["mount", "-t", "tmpfs", "none", source])
    try:
        tree = source / "tree"
        for number in range(100):
            (tree / f"{number:02}").mkdir(parents=True)
        (tree / "first").write_text("many")
        for number in range(MOST_NAMES + 300):
            os.link(tree / "first", tree / f"{number % 100:02}" / f"name-{number}")
        (tree / "last").mkdir()
        (tree / "last/other").write_text("other")
        yield tree
    finally:
        unmount(source)


def test_more_names_than_the_server_allows_a_file(
    enrolled_client: EnrolledClient, linked: Path
) -> None:
    # What is on a tmpfs would be left out by itself.
    words = ("--source", linked, "--exclude", "/none", *NO_RETRY)
    names = {path.relative_to(linked) for path in linked.rglob("*")}
    for number in range(2):
        (linked / f"new-{number}").write_text("new")
        names.add(Path(f"new-{number}"))
        outcome = backup(enrolled_client, *words)
        assert (outcome.stdout, outcome.stderr) == ("", "")
        copy = copy_of(enrolled_client, linked)
        assert {path.relative_to(copy) for path in copy.rglob("*")} == names
        assert (copy / "last/other").read_text() == "other"
        files = {path.stat().st_ino: path for path in copy.rglob("name-*")}
        assert len(files) == 2
        assert {path.read_text() for path in files.values()} == {"many"}
        assert sum(path.stat().st_nlink for path in files.values()) == MOST_NAMES + 301


def test_a_restore_brings_what_is_beside_damaged_attributes(
    damaged: EnrolledClient, source: Path, tmp_path: Path
) -> None:
    (name,) = [p.name for p in damaged.current.parent.iterdir() if p.name[0] == "2"]
    snapshot = damaged.current.parent / name
    run_program(["btrfs", "property", "set", "-t", "subvol", snapshot, "ro", "false"])
    below = snapshot / source.relative_to("/")
    for path in ("a", "below/c"):
        os.setxattr(below / path, STAT, b"100640 0,0")
    os.removexattr(below / "b", STAT)  # which is no damage
    run_program(["btrfs", "property", "set", "-t", "subvol", snapshot, "ro", "true"])
    program = damaged.bin / "byteback-restore"
    restore: list[str | Path] = [program, "--restore", "--yes", "--snapshot", name]
    expected = {"b", "below/d", "link"}

    def names_in(directory: Path) -> set[str]:
        top = directory / source.relative_to("/")
        return {str(p.relative_to(top)) for p in top.rglob("*") if not p.is_dir()}

    place = tmp_path / name
    for words in (["--dry-run"], []):
        done = run_program([*restore, *words, source], check=False, cwd=tmp_path)
        assert done.status == 3, done
        assert place.exists() == (not words)
        for path in ("a", "below/c"):
            at = place / source.relative_to("/") / path
            assert f"not restored: '{at}': its owner and mode are" in done.stderr
    assert names_in(place) == expected
    # In place: what is there stays as it is.
    (source / "a").write_text("changed")
    (source / "below/d").unlink()
    done = run_program([*restore, "--in-place", source], check=False)
    assert done.status == 3, done
    assert (source / "below/d").read_text() == "contents of below/d"
    assert (source / "a").read_text() == "changed"
