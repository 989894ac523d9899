"""Files whose change no size and no time shows: found there, and doubted here."""

from __future__ import annotations

import errno
import io
import itertools
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byteback.errors import RefusedError
from byteback.server.replicate import doubts
from byteback.server.replicate.changed import Unseen, unseen_changes
from byteback.server.store import state
from byteback.server.store.layout import Store
from byteback.server.store.state import Transfer
from byteback.server.transfer.recheck import INVALID_MTIME_NS
from byteback.wire import changed_names

PATHS = ("a", "dir/b", "dir/new\nline", "dir/deep/\udcff")
# Contents, times, and whether the newer tree has the very same inode.
FILE = st.tuples(st.sampled_from([b"one", b"two", b"longer", b""]), st.integers(1, 2))
TREE = st.dictionaries(st.sampled_from(PATHS), FILE)


def write(path: Path, content: bytes, time: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (time, time))


@settings(max_examples=60)
@given(older=TREE, newer=TREE, same=st.sets(st.sampled_from(PATHS)))
def test_all_unseen_changes_are_found_and_nothing_else(
    older: dict[str, tuple[bytes, int]],
    newer: dict[str, tuple[bytes, int]],
    same: set[str],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        old, new = Path(directory, "old"), Path(directory, "new")
        old.mkdir()
        new.mkdir()
        for path, (content, time) in older.items():
            write(old / path, content, time)
        for path, (content, time) in newer.items():
            if path in same and path in older:
                (new / path).parent.mkdir(parents=True, exist_ok=True)
                os.link(old / path, new / path)
            else:
                write(new / path, content, time)
        expected = {
            path
            for path in newer.keys() & older.keys() - same
            if newer[path][0] != older[path][0]
            and len(newer[path][0]) == len(older[path][0])
            and newer[path][1] == older[path][1]
        }
        found = set(unseen_changes(new, old, lambda: None))
        assert found == {Unseen(path) for path in expected}


def test_a_hole_larger_than_any_disc_is_passed_over(tmp_path: Path) -> None:
    for name in ("old", "new"):
        write(tmp_path / name / "file", b"begin", 1)
        with (tmp_path / name / "file").open("r+b") as file:
            file.seek(1 << 42)
            file.write(name.encode())
        os.utime(tmp_path / name / "file", (1, 1))
    steps: list[None] = []
    found = unseen_changes(
        tmp_path / "new", tmp_path / "old", lambda: steps.append(None)
    )
    assert list(found) == [Unseen("file")]
    assert len(steps) < 10


@pytest.mark.parametrize("call", ["pread", "lseek"])
def test_what_a_bad_disc_does_not_give_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """rsync says the rest: the comparison must not end for it."""
    for name in ("old", "new"):
        write(tmp_path / name / "file", b"x", 1)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "bad disc")

    monkeypatch.setattr(os, call, fail)
    found = unseen_changes(tmp_path / "new", tmp_path / "old", lambda: None)
    assert list(found) == [Unseen("file")]


def test_another_kind_is_rsyncs_own_affair(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name / "dir").mkdir(parents=True)
    (tmp_path / "old" / "file").symlink_to("/etc/passwd")
    write(tmp_path / "new" / "file", b"x", 1)
    (tmp_path / "old" / "other").mkdir()
    write(tmp_path / "new" / "other" / "below", b"x", 1)
    (tmp_path / "new" / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "new" / "fifo")
    found = unseen_changes(tmp_path / "new", tmp_path / "old", lambda: None)
    assert list(found) == []


ACL, OTHER = "user.rsync.%aacl", "user.rsync.security.selinux"
MODE = "user.rsync.%stat"


def attach(path: Path, *keys: str, mode: str = "") -> Path:
    """Give a file attributes; ``mode`` is what rsync notes it to be."""
    if not path.exists():
        path.write_bytes(b"x")
    for key in keys:
        os.setxattr(path, key, b"1")
    if mode:
        os.setxattr(path, MODE, f"{mode} 0,0 0:0".encode())
    return path


def test_acls_that_rsync_loses(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for top in (old, new):
        top.mkdir()
        (attach(top / "attribute", ACL, OTHER)).write_bytes(top.name.encode())
        for name in ("contents", "no acl"):
            attach(top / name).write_bytes(b"1" * len(top.parts))
        for name in ("dir same", "dir other"):
            (top / name).mkdir()
            attach(top / name, ACL)
        attach(top / "same", ACL, OTHER)
        os.utime(top / "same", (1, 1))
    attach(new / "contents", ACL).write_bytes(b"more than before")
    (new / "no acl").write_bytes(b"more than before")
    attach(new / "dir other", OTHER)
    os.setxattr(new / "attribute", OTHER, b"2")
    # Both are new, or of another kind.
    attach(new / "new plain", ACL, OTHER)
    attach(new / "new device", ACL, OTHER, mode="20644")
    attach(new / "device without", ACL, mode="20644")
    (old / "was a file").touch()
    for name in ("new dir", "was a file", "dir without"):
        (new / name).mkdir()
        attach(new / name, ACL, *([OTHER] if name != "dir without" else []))
    found = set(unseen_changes(new, old, lambda: None))
    lost = ("attribute", "dir other", "new device", "new dir", "was a file")
    expected = {Unseen(name, loses_acl=True) for name in lost}
    assert found == {*expected, Unseen("contents")}


def test_contents_count_besides_attributes(tmp_path: Path) -> None:
    """The transfer that brings an ACL again does not compare contents."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        path = attach(tmp_path / name / "file", ACL, mode="100644")
        path.write_bytes(name.encode())
        os.utime(path, (1, 1))
    os.setxattr(tmp_path / "new" / "file", MODE, b"100600 0,0 0:0")
    found = unseen_changes(tmp_path / "new", tmp_path / "old", lambda: None)
    assert list(found) == [Unseen("file", loses_acl=True), Unseen("file")]


@given(st.lists(st.binary(min_size=1, max_size=99), max_size=9))
def test_names_come_back_as_they_were(names: list[bytes]) -> None:
    sent = [
        changed_names.format_name(name) + changed_names.STILL_HERE for name in names
    ]
    stream = io.BytesIO(b"".join([*sent, changed_names.END, b"rsync's"]))
    assert list(changed_names.read_names(stream.read)) == names
    assert stream.read() == b"rsync's"


def test_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changed_names, "MAX_NAMES", 100)

    def endless(size: int) -> bytes:
        return b"\0\1" if size == changed_names.LENGTH.size else b"x"

    names = changed_names.read_names(endless)
    assert len(list(itertools.islice(names, 100))) == 100
    with pytest.raises(ValueError, match="no names"):
        next(names)
    too_long = changed_names.LENGTH.pack(changed_names.MAX_NAME + 1)
    with pytest.raises(ValueError, match="no names"):
        list(changed_names.read_names(io.BytesIO(too_long + bytes(9999)).read))


HOSTILE = (
    *(b"../outside", b"/outside", b"a/../../outside", b"link", b"link/outside", b".."),
    *(b".", b"/", b"dir", b"dir/", b"", b"missing", b"file/below", b"loop", b"x" * 300),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A client whose current has a file, and links that lead out."""
    store = Store(tmp_path)
    current = store.current("client")
    write(current / "dir" / "file", b"x", 5)
    write(current / "file", b"x", 5)
    write(tmp_path / "client" / "outside", b"x", 5)
    (current / "link").symlink_to("../outside")
    (current / "loop").symlink_to("loop")
    store.lock_path("client").parent.mkdir(parents=True)
    state.write(store, "client", Transfer.WHOLE)
    return store


def take(store: Store, sent: bytes) -> bool:
    reader, writer = os.pipe()
    os.write(writer, sent)
    os.close(writer)
    try:
        return doubts.take(store, "client", reader, lambda: None)
    finally:
        os.close(reader)


def test_what_is_named_is_doubted(store: Store) -> None:
    names = [b"dir/file", *(name for name in HOSTILE if name)]
    sent = b"".join(map(changed_names.format_name, names)) + changed_names.END
    take(store, sent)
    current = store.current("client")
    doubted = {
        path.relative_to(store.root).as_posix()
        for path in store.root.rglob("*")
        if path.lstat().st_mtime_ns == INVALID_MTIME_NS
    }
    assert doubted == {"client/current/dir/file"}
    assert (current / "dir" / "file").read_bytes() == b"x"
    # No restore takes it for the newest copy before rsync was here.
    assert state.read(store, "client") is Transfer.FAILED


def test_a_named_file_has_no_acl_here_until_rsync_writes_it(store: Store) -> None:
    current = store.current("client")
    path = attach(current / "dir" / "file", ACL, OTHER)
    attach(current / "file", ACL)
    name = changed_names.format_name(b"dir/file")
    assert take(store, name + changed_names.AGAIN + changed_names.END)
    assert os.listxattr(path) == [OTHER]
    assert os.listxattr(current / "file") == [ACL]
    assert not take(store, name + changed_names.END)


def test_where_nothing_is_named_nothing_changes(store: Store) -> None:
    take(store, changed_names.STILL_HERE + changed_names.END)
    assert state.read(store, "client") is Transfer.WHOLE


def test_answers_that_are_none(store: Store) -> None:
    with pytest.raises(RefusedError):
        take(store, b"\xf0" * 99)
    with pytest.raises(RefusedError):
        take(store, changed_names.format_name(b"a\0b"))
    with pytest.raises(EOFError):
        take(store, b"\0\7short")
    with pytest.raises(changed_names.CompareAllError):
        take(store, changed_names.EVERYTHING)
