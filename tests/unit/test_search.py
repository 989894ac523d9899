"""Searching a client's trees, of which the client may have planted anything."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from byteback.errors import RefusedError
from byteback.model.listing import Entry
from byteback.server.search import run
from byteback.server.store.layout import Store
from byteback.system.rsync.fake_super import ATTRIBUTE
from byteback.wire.requests import MAX_PATTERN_INPUT, Pull

HOST = "client.example"
OLD, NEW = "2026-11-20T20:15+0000", "2026-11-22T20:15+0000"
TREES = (OLD, NEW, "current", "saved-do-not-delete")
IN_ETC = sorted(["changed", "same", "sub", *(f"only-{tree}" for tree in TREES)])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two clients; the first has two snapshots, current and a foreign directory."""
    made = Store(tmp_path)
    for tree in TREES:
        etc = made.host_directory(HOST) / tree / "etc"
        etc.mkdir(parents=True)
        write(etc / "same", "same", 1000)
        write(etc / "changed", tree, 1000 + len(tree))
        (etc / f"only-{tree}").touch()
    (made.current(HOST) / "etc/sub/.hidden").mkdir(parents=True)
    write(made.current(HOST) / "etc/sub/.hidden/file", "", 1)
    write(made.current(HOST) / "etc/sub/file", "", 1)
    secret = made.host_directory("other.example") / "current/etc"
    secret.mkdir(parents=True)
    (secret / "shadow").write_text("secret")
    return made


def write(path: Path, text: str, mtime: int) -> None:
    """A file with a time of its own."""
    path.write_text(text)
    os.utime(path, (mtime, mtime))


def find(
    store: Store,
    *patterns: str,
    snapshot: str = "*",
    scope: str = "newest",
    whole: bool = True,
) -> list[Entry]:
    """The whole result of a search."""
    return list(
        run.find(store, HOST, snapshot, scope, patterns, current_is_whole=whole)
    )


def paths(store: Store, *patterns: str) -> list[str]:
    """Only the paths of the newest copies."""
    return [entry.path for entry in find(store, *patterns)]


def test_the_newest_copy_of_each_path(store: Store) -> None:
    """current first; what is gone from it comes from where it last was."""
    found = {entry.path: entry.snapshot for entry in find(store, "/etc/*")}
    assert found == {
        "/etc/changed": "current",
        "/etc/same": "current",
        "/etc/sub": "current",
        "/etc/only-current": "current",
        "/etc/only-saved-do-not-delete": "saved-do-not-delete",
        f"/etc/only-{NEW}": NEW,
        f"/etc/only-{OLD}": OLD,
    }
    assert list(found) == sorted(found)
    [unfinished] = find(store, "/etc/changed", whole=False)
    assert unfinished.snapshot == NEW


def test_versions_and_copies(store: Store) -> None:
    """Versions newest first, copies oldest first."""
    same = find(store, "/etc/same", scope="versions")
    assert [(e.snapshot, e.first_seen) for e in same] == [("current", OLD)]
    changed = find(store, "/etc/changed", scope="versions")
    assert [(e.snapshot, e.first_seen) for e in changed] == [
        ("current", "current"),
        ("saved-do-not-delete", "saved-do-not-delete"),
        (NEW, OLD),
    ]
    copies = find(store, "/etc/same", scope="copies")
    assert [e.snapshot for e in copies] == [OLD, NEW, "saved-do-not-delete", "current"]


def test_a_snapshot_can_be_chosen(store: Store) -> None:
    """By name or with a star; a wrong name is an error, never all of them."""
    assert find(store, "/etc/same", snapshot=OLD)[0].snapshot == OLD
    assert find(store, "/etc/same", snapshot="2026-11-2*")[0].snapshot == NEW
    assert find(store, "/etc/same", snapshot="saved*")[0].snapshot.startswith("saved")
    for name in ("2001*", "../other.example", "[a-z]*", "nosuch"):
        with pytest.raises(RefusedError):
            find(store, "/etc/same", snapshot=name)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("/", ["/"]),
        ("/etc", ["/etc"]),
        ("/etc/", ["/etc"]),
        ("/etc/same/", []),
        ("/etc/s*/", ["/etc/sub"]),
        ("/etc/s{ame,ub}", ["/etc/same", "/etc/sub"]),
        ("/**/file", ["/etc/sub/file"]),
        ("/**/.hidden/file", ["/etc/sub/.hidden/file"]),
        ("/etc/**/", ["/etc", "/etc/sub"]),
        ("/etc/sub/**/*", ["/etc/sub/file"]),
        ("/etc/sub/**", ["/etc/sub/file"]),
        ("/**/**", ["/etc", *(f"/etc/{name}" for name in IN_ETC), "/etc/sub/file"]),
        ("/etc/s*/.", ["/etc/sub"]),
        ("/etc/**/.", ["/etc", "/etc/sub"]),
        ("/etc/sub/**/x/..", ["/etc/sub/file"]),
        ("/etc/sub/.*", ["/etc/sub/.hidden"]),
        ("/etc/sub/{*,.*}", ["/etc/sub/.hidden", "/etc/sub/file"]),
        ("/*/sub/f???", ["/etc/sub/file"]),
        ("/ETC/same", []),
        ("/etc/same/x", []),
        ("/etc/[!c]ame", ["/etc/same"]),
    ],
)
def test_patterns_in_trees(store: Store, pattern: str, expected: list[str]) -> None:
    """Dir.glob's rules for directories."""
    assert paths(store, pattern) == expected


def test_overlapping_patterns_give_each_path_once(store: Store) -> None:
    """All are walked together."""
    assert paths(store, "/etc/sa*", "/**/same", "/etc/same") == ["/etc/same"]


@pytest.mark.parametrize(
    "pattern",
    [
        "/../../other.example/current/etc/shadow",
        "/{..,.}/{..,.}/other.example/current/etc/shadow",
        "/\\.\\./\\.\\./other.example/current/etc/shadow",
        "/etc/..\\/..\\/..\\/other.example/current/etc/shadow",
        "/**/../../../other.example/**/shadow",
        "/[.][.]/[.][.]/other.example/current/etc/shadow",
        "/.*/.*/other.example/current/etc/shadow",
        "/link/shadow",
        "/link/*",
        "/**/shadow",
        "/etc/linked/shadow",
    ],
)
def test_no_pattern_reaches_another_client(store: Store, pattern: str) -> None:
    """Neither by dots in any spelling nor through links that the client planted."""
    other = store.host_directory("other.example") / "current/etc"
    (store.current(HOST) / "link").symlink_to(other)
    (store.current(HOST) / "etc/linked").symlink_to(other)
    assert find(store, pattern, scope="copies") == []


def test_a_tree_that_is_a_link_is_none(store: Store) -> None:
    """A client cannot make one; a mistake of an administrator shows nothing either."""
    (store.host_directory(HOST) / "2026-11-23T20:15+0000").symlink_to(
        store.host_directory("other.example") / "current"
    )
    assert paths(store, "/etc/shadow") == []


def test_planted_links_are_shown_and_not_followed(store: Store) -> None:
    """A real link is listed as what it is."""
    (store.current(HOST) / "link").symlink_to("/etc/shadow")
    [entry] = find(store, "/link")
    assert stat.S_ISLNK(entry.mode)
    assert entry.target == "/etc/shadow"


def test_fifos_and_huge_links_neither_block_nor_fill(store: Store) -> None:
    """Nothing but plain files is opened, and of a link no more is read than can be."""
    current = store.current(HOST)
    os.mkfifo(current / "fifo")
    with (current / "huge").open("wb") as file:
        file.truncate(1 << 40)
    try:
        os.setxattr(current / "huge", ATTRIBUTE, b"120777 0,0 0:0")
    except OSError as error:
        pytest.skip(f"no extended attributes here: {error.strerror}")
    started = time.process_time()
    fifo, huge = find(store, "/fifo", "/huge")
    assert time.process_time() - started < 2
    assert stat.S_ISFIFO(fifo.mode)
    assert len(huge.target or "") == 4096


def test_noted_owners_and_devices_are_shown(store: Store) -> None:
    """rsync's note counts, unless it contradicts what is there."""
    etc = store.current(HOST) / "etc"
    try:
        os.setxattr(etc / "same", ATTRIBUTE, b"60660 8,17 123:456")
    except OSError as error:
        pytest.skip(f"no extended attributes here: {error.strerror}")
    os.setxattr(etc / "sub", ATTRIBUTE, b"100644 0,0 1:1")
    device, directory = find(store, "/etc/same", "/etc/sub")
    assert (device.mode, device.device) == (stat.S_IFBLK | 0o660, (8, 17))
    assert (device.uid, device.gid) == (123, 456)
    assert directory.is_directory
    assert directory.uid == os.getuid()


def test_deep_trees_are_no_danger(store: Store) -> None:
    """Neither recursion nor descriptors run out; the search still ends."""
    fd = os.open(store.current(HOST), os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    try:
        assert len(find(store, "/**/d")) == 1500
    finally:  # too deep for Python, whose recursion pytest uses to clean up
        subprocess.run(["rm", "-rf", store.current(HOST) / "d"], check=True)


def test_limits_say_narrow_your_pattern(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many results, or too long a search."""
    monkeypatch.setattr(run, "MAX_RESULTS", 3)
    with pytest.raises(RefusedError, match="too many files") as error:
        find(store, "/etc/*")
    assert error.value.hint == "narrow your pattern"
    monkeypatch.setattr(run, "MAX_RESULTS", 1000)
    monkeypatch.setattr(run, "MAX_SECONDS", -1.0)
    for number in range(300):
        (store.current(HOST) / f"{number}").touch()
    with pytest.raises(RefusedError, match="too long"):
        find(store, "/*")


def open_files() -> list[str]:
    """The numbers of this process's open files."""
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def test_no_descriptors_are_left(store: Store) -> None:
    """Also when the reader loses interest half-way."""
    before = open_files()
    find(store, "/**/*")
    half = run.find(store, HOST, "*", "copies", ["/**/*"], current_is_whole=True)
    next(half)
    half.close()  # type: ignore[attr-defined] # it is a generator
    assert open_files() == before


def test_sizes_and_samples_of_all_that_is_below(store: Store) -> None:
    """Hidden files count; of several snapshots the newest copy alone is measured."""
    (store.current(HOST) / "etc/sub/.hidden/file").write_bytes(b"x" * 5000)
    whole = run.total_size(store, HOST, "*", ["/etc/sub"], current_is_whole=True)
    part = run.total_size(store, HOST, OLD, ["/etc/sub"], current_is_whole=True)
    assert (whole >= 5000, part) == (True, 0)
    found = run.sample(store, HOST, NEW, ["/"], 100, current_is_whole=True)
    assert {"/etc/same", f"/etc/only-{NEW}"} <= set(found)
    assert len(run.sample(store, HOST, "*", ["/"], 3, current_is_whole=True)) == 3
    with pytest.raises(RefusedError, match="no more than"):
        run.sample(store, HOST, "*", ["/"], 10**9, current_is_whole=True)


def test_differences_of_plain_directories(store: Store) -> None:
    """Whatever file system the trees are on."""

    def kinds(newer: str, older: str, pattern: str) -> dict[str, str]:
        found = run.changes(
            *(store, HOST, newer, older, [pattern]), current_is_whole=True
        )
        return {difference.entry.path: difference.kind for difference in found}

    assert kinds("current", OLD, "/") == {
        "/etc/changed": "changed",
        "/etc/only-current": "new",
        f"/etc/only-{OLD}": "deleted",
        "/etc/sub": "new",
        "/etc/sub/.hidden": "new",
        "/etc/sub/.hidden/file": "new",
        "/etc/sub/file": "new",
    }
    assert kinds("current", "2026-11-2*", "/etc/{same,only-*}") == {
        "/etc/only-current": "new",
        f"/etc/only-{NEW}": "deleted",
    }
    assert kinds("current", "current", "/") == {}


def test_patterns_are_read_from_a_stream() -> None:
    """Any byte but NUL; bounded; a cut-off stream is noticed."""
    assert run.read_patterns(io.BytesIO(b"/a\n\xff\0/b\0")) == ["/a\n\udcff", "/b"]
    for data in (b"", b"/a", b"/a\0/b", b"x" * 20_000 + b"\0"):
        with pytest.raises(RefusedError):
            run.read_patterns(io.BytesIO(data))


def test_a_flood_of_patterns_is_refused() -> None:
    """Before it fills the memory."""

    class Flood(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            return b"\0" * size

    with pytest.raises(RefusedError, match="too many patterns"):
        run.read_patterns(Flood())
    assert MAX_PATTERN_INPUT < 1 << 30


def resolve(store: Store, *patterns: str, every_version: bool = False) -> list[str]:
    """The names for an old client's restore."""
    request = Pull("*", every_version, (), patterns)
    return run.resolve(store, HOST, request, current_is_whole=True)


def test_old_clients_get_names_below_their_host(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the snapshot, and nothing twice."""
    assert resolve(store, "/etc/same") == ["./current/etc/same"]
    assert resolve(store, "/etc/sub", "/etc/sub/file") == ["./current/etc/sub"]
    assert resolve(store, "/", "/etc/same") == ["./current/"]
    assert resolve(store, "/etc/changed", every_version=True)[-1] == (
        f"./{NEW}/etc/changed"
    )
    with pytest.raises(RefusedError, match="nothing"):
        resolve(store, "/no/such")
    monkeypatch.setattr(run, "MAX_ARGUMENTS", 30)
    with pytest.raises(RefusedError, match="too many"):
        resolve(store, "/etc/*")


def test_thousands_of_patterns_are_one_walk(store: Store) -> None:
    """Their number hardly matters."""
    patterns = [f"/no/such/file{number}" for number in range(20_000)]
    started = time.process_time()
    assert paths(store, *patterns, "/etc/same") == ["/etc/same"]
    assert time.process_time() - started < 10


def test_the_standard_library_is_enough_to_start() -> None:
    """The forced command imports this; what costs time comes later."""
    code = "import sys, byteback.server.search.run; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"xattr", "click", "psutil", "paramiko", "logging"} & set(loaded)
