"""A file system mounted twice is sent once, and read-only snapshots are not sent."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from byteback.client.backup import notices
from byteback.client.backup.rules import Request, Selection, select
from byteback.client.settings import Files
from tests.integration.conftest import EnrolledClient
from tests.integration.programs import run_program
from tests.integration.selection.dry_run import dry_run
from tests.integration.selection.mounted import disc, mounted, write_below

BTRFS = "mkfs.btrfs -q"


@pytest.fixture
def top() -> Iterator[Path]:
    """An empty directory; not below /tmp, which is left out by itself."""
    with tempfile.TemporaryDirectory(prefix="source-", dir="/srv") as directory:
        yield Path(directory)


@pytest.fixture
def bound(top: Path) -> Iterator[Path]:
    """A disc at data, whose directory home is mounted at home as well."""
    for name in ("data", "home"):
        (top / name).mkdir()
    with disc(top / "data"):
        (top / "data/home/joe").mkdir(parents=True)
        (top / "data/home/joe/file").write_text("joe's")
        with mounted(top / "home", "--bind", top / "data/home"):
            yield top


@pytest.fixture
def pool(top: Path) -> Iterator[Path]:
    """A btrfs with subvolumes and snapshots of all kinds."""
    (top / "pool").mkdir()
    with disc(top / "pool", BTRFS) as pool:
        make_subvolume(pool / "live")
        (pool / "live/.snapshots").mkdir()
        for number in (1, 2):
            snapshot(pool / "live", pool / f"live/.snapshots/{number}")
        snapshot(pool / "live/.snapshots/1", pool / "of-a-snapshot")
        snapshot(pool / "live", pool / "writable", "")
        make_subvolume(pool / "frozen")
        run_program(["btrfs", "property", "set", "-ts", pool / "frozen", "ro", "true"])
        make_subvolume(pool / "gone")
        snapshot(pool / "gone", pool / "of-gone")
        run_program(["btrfs", "subvolume", "delete", pool / "gone"])
        stream = top / "stream"
        for number in (1, 2):
            run_program(
                ["btrfs", "send", "-f", stream, pool / f"live/.snapshots/{number}"]
            )
            (pool / "received").mkdir(exist_ok=True)
            run_program(["btrfs", "receive", "-f", stream, pool / "received"])
        stream.unlink()
        yield pool


def make_subvolume(path: Path) -> None:
    run_program(["btrfs", "subvolume", "create", path])
    (path / "file").write_text(path.name)


def snapshot(source: Path, target: Path, flag: str = "-r") -> None:
    run_program(["btrfs", "subvolume", "snapshot", *flag.split(), source, target])


def select_whole(top: Path) -> Selection:
    """The selection of a directory where nothing else is said."""
    return select(Files(top / "none"), Request([str(top)]))


def sent(
    top: Path,
    *sources: Path,
    excludes: list[str] | None = None,
    files: dict[str, str] | None = None,
) -> set[str]:
    """The files below ``top`` that are sent, relative to it."""
    with tempfile.TemporaryDirectory() as directory:
        for name, text in (files or {}).items():
            Path(directory, name).write_text(text)
        request = Request([str(source) for source in sources or (top,)], excludes)
        found = dry_run(select(Files(Path(directory)), request))
    return {
        path.removeprefix(f"{top}/")
        for path in found
        if path.startswith(f"{top}/") and not path.endswith("/")
    }


# --- Bind mounts -----------------------------------------------------------------

DATA, HOME = "data/home/joe/file", "home/joe/file"


def test_a_bind_mount_of_what_is_sent_is_left_out(bound: Path) -> None:
    assert sent(bound) == {DATA}
    assert f"{bound}/home/" in dry_run(select_whole(bound))
    (told,) = select_whole(bound).left_out
    assert told.text == f"'{bound}/home' (the same as '{bound}/data/home')"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("excludes", "{top}/data/home\n", {HOME}),
        ("excludes", "{top}/data\n", {HOME}),
        ("excludes", "home/\n", set()),
        ("rsync_flags", "--exclude={top}/data/*\n", {HOME}),
        ("rsync_filter", "+ {top}/home/***\n", {DATA, HOME}),
        ("excludes", "*.bak\n", {DATA}),
    ],
)
def test_rules_decide_whether_the_original_is_sent(
    bound: Path, name: str, text: str, expected: set[str]
) -> None:
    assert sent(bound, files={name: text.format(top=bound)}) == expected


def test_a_bind_mount_that_is_asked_for_is_sent(bound: Path) -> None:
    assert sent(bound, bound / "home") == {HOME}
    assert sent(bound, bound, bound / "home/joe") == {DATA, HOME}
    assert sent(bound, excludes=["nothing"]) == {DATA, HOME}


def test_what_a_mount_hides_in_the_original_is_sent(bound: Path) -> None:
    cache = bound / "data/home/cache"
    cache.mkdir()
    (bound / "home/cache/below").write_text("below")
    with mounted(cache, "-t", "tmpfs", "none"):
        assert sent(bound) == {DATA, "home/cache/below"}
        write_below(cache, "more")
        assert sent(bound) == {DATA, "home/cache/below", "home/cache/more"}


def test_a_file_system_that_is_mounted_twice_is_sent_once(top: Path) -> None:
    (top / "a").mkdir()
    (top / "b").mkdir()
    with disc(top / "a"), mounted(top / "b", "--bind", top / "a"):
        (top / "a/file").touch()
        assert sent(top) == {"a/file"}
        assert sent(top, top / "b") == {"b/file"}


def test_where_only_a_part_is_a_source_all_else_stays(bound: Path) -> None:
    assert sent(bound, bound / "data/home/joe", bound / "home") == {DATA, HOME}


# --- Subvolumes ------------------------------------------------------------------


def test_snapshots_of_what_is_sent_are_left_out(pool: Path, top: Path) -> None:
    assert {path.removeprefix("pool/") for path in sent(top)} == {
        *("live/file", "writable/file", "frozen/file", "of-gone/file"),
        *("received/1/file", "received/2/file"),
    }
    (told,) = select_whole(top).left_out
    assert told.text == f"read-only snapshots of '{pool}/live'"


def test_snapshots_that_are_asked_for_are_sent(pool: Path, top: Path) -> None:
    wanted = pool / "live/.snapshots/1"
    assert sent(top, wanted) == {"pool/live/.snapshots/1/file"}
    assert "pool/live/.snapshots/1/file" in sent(top, top, wanted)
    assert "pool/live/.snapshots/2/file" not in sent(top, top, wanted)
    assert "pool/of-a-snapshot/file" in sent(top, excludes=["nothing"])
    rules = f"+ {pool}/live/.snapshots/2/***\n"
    assert "pool/live/.snapshots/2/file" in sent(top, files={"rsync_filter": rules})


def test_snapshots_of_what_is_not_sent_are_sent(pool: Path, top: Path) -> None:
    """Whoever excludes the live files has the snapshot backed up in their place."""
    found = sent(top, files={"excludes": f"{pool}/live/\n"})
    assert {"pool/of-a-snapshot/file", "pool/writable/file"} <= found
    assert "pool/live/file" not in found


def test_a_subvolume_is_sent_where_it_is_mounted(top: Path) -> None:
    for name in ("pool", "home", "old"):
        (top / name).mkdir()
    with disc(top / "pool", BTRFS) as pool:
        make_subvolume(pool / "@home")
        make_subvolume(pool / "@other")
        snapshot(pool / "@home", pool / "@old")
        device = run_program(["findmnt", "-no", "SOURCE", pool]).stdout.strip()
        with (
            mounted(top / "home", "-o", "subvol=@home", device),
            mounted(top / "old", "-o", "subvol=@old", device),
        ):
            assert sent(top) == {"home/file", "pool/@other/file"}
            assert sent(top, pool) == {"pool/@home/file", "pool/@other/file"}


def test_a_snapshot_that_a_hook_mounts_over_the_original_is_sent(top: Path) -> None:
    (top / "pool").mkdir()
    with disc(top / "pool", BTRFS) as pool:
        make_subvolume(pool / "live")
        snapshot(pool / "live", pool / "live/.byteback-snapshot")
        with mounted(pool / "live", "--bind", pool / "live/.byteback-snapshot"):
            assert sent(top) == {"pool/live/file"}


@pytest.mark.parametrize("level", ["-x", "-xx"])
def test_one_file_system_ends_at_subvolumes(pool: Path, top: Path, level: str) -> None:
    """As rsync's own -x does, for each has a device number of its own."""
    (pool / "plain").write_text("in the top itself")
    assert sent(top, pool, files={"rsync_flags": level}) == {"pool/plain"}
    assert sent(top, pool / "live", files={"rsync_flags": level}) == {"pool/live/file"}


# --- What is told ----------------------------------------------------------------


def test_it_is_told_once(
    enrolled_client: EnrolledClient, pool: Path, top: Path
) -> None:
    notices.STATE.unlink(missing_ok=True)
    argv: list[str | Path] = [enrolled_client.bin / "byteback-backup", "--source", top]
    assert run_program(argv).stderr == (
        "byteback-backup: note: left out of the backup: read-only snapshots of "
        f"'{pool}/live'\n"
    )
    snapshot(pool / "live", pool / "live/.snapshots/3")
    assert run_program(argv).stderr == ""
    copy = enrolled_client.current / pool.relative_to("/")
    assert (copy / "live/file").exists()
    assert list((copy / "live/.snapshots/3").iterdir()) == []
