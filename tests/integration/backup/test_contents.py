"""The server's copy holds what the client has, whatever it was before."""

from __future__ import annotations

import os
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

from byteback.model.snapshot import format_snapshot_name, parse_snapshot_name
from byteback.server.store.layout import Store
from byteback.server.transfer.change_log import Changes
from byteback.server.transfer.hard_links import separate
from tests.integration.backup.runs import add_hook, backup, copy_of, make_due, snapshots
from tests.integration.conftest import MOUNT_OPTIONS, EnrolledClient, unmount
from tests.integration.programs import run_program


def test_what_a_hook_mounts_is_left_out_like_all_the_rest(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    (source / "share").mkdir()
    mount = f"mount -t tmpfs none {source}/share && touch {source}/share/of-others"
    add_hook(enrolled_client, "pre-backup.d", "mount", mount)
    unmount_it = f"umount {source}/share && rm {source}/home/of-others"
    add_hook(enrolled_client, "finally-backup.d", "unmount", unmount_it)
    add_hook(enrolled_client, "finally-backup.d", "alarm", "exit 1")
    (source / "home/of-others").touch()
    outcome = backup(enrolled_client, "--source", source, expect=13)
    assert "finally-backup.d/alarm' failed with status 1" in outcome.stderr
    assert copy_of(enrolled_client, source / "home/of-others").exists()
    assert list(copy_of(enrolled_client, source / "share").iterdir()) == []
    # It was unmounted although the alarm before it had failed.
    assert not (source / "home/of-others").exists()


FULL = """
for directory in /tmp /var/tmp; do
    mount -t tmpfs -o size=4k,nr_inodes=2 none $directory && touch $directory/file
done
cd /tmp && exec "$@"
"""


def test_a_full_disc_is_backed_up(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    # Such a directory is sent once more, by a list of names (see lost_acls.py).
    run_program(["setfacl", "-m", "u:nobody:r", source / "home"])
    run_program(["setfattr", "-n", "user.a", "-v", "b", source / "home"])
    program = enrolled_client.bin / "byteback-backup"
    argv: list[str | Path] = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        FULL,
        "sh",
        program,
        "--source",
        source,
    ]
    outcome = run_program([*argv, "--retry-number", "0"], check=False)
    assert (outcome.status, outcome.stderr) == (0, "")
    copy = copy_of(enrolled_client, source / "home")
    assert "user.rsync.%aacl" in os.listxattr(copy)


def test_the_old_greedy_spelling(enrolled_client: EnrolledClient, source: Path) -> None:
    words = f"--source {source}/etc {source}/home -x nothing none".split()
    backup(enrolled_client, *words)
    assert copy_of(enrolled_client, source / "etc/hosts").exists()
    assert copy_of(enrolled_client, source / "home/a b").exists()


def test_a_changed_source_leaves_nothing_stale(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    backup(enrolled_client, "-s", source / "etc", "-s", source / "home")
    make_due(enrolled_client)
    backup(enrolled_client, "-s", source / "etc")
    assert copy_of(enrolled_client, source / "etc/hosts").exists()
    assert not copy_of(enrolled_client, source / "home").exists()
    first, second = snapshots(enrolled_client)
    assert copy_of(enrolled_client, source / "home/a b", first).exists()
    assert not copy_of(enrolled_client, source / "home", second).exists()


def test_a_dry_run_changes_nothing(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    mark = source.parent / f"{source.name}-mark"
    for directory in ("pre-backup.d", "post-backup.d", "finally-backup.d"):
        add_hook(enrolled_client, directory, "a", f"touch {mark}")
    outcome = backup(enrolled_client, "--source", source, "--dry-run")
    assert f"{source}/etc/hosts" in outcome.stdout
    assert not mark.exists()
    assert list(enrolled_client.current.iterdir()) == []
    assert snapshots(enrolled_client) == []
    state = enrolled_client.store / ".byteback/hosts"
    assert list(state.glob("*.state")) == []


def test_an_edit_of_the_same_size_in_the_same_second(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    file = source / "file"
    file.write_text("one")
    os.utime(file, ns=(10**18, 10**18 + 1))
    backup(enrolled_client, "--source", source)
    file.write_text("two")
    os.utime(file, ns=(10**18, 10**18 + 2))
    backup(enrolled_client, "--source", source)
    assert copy_of(enrolled_client, file).read_text() == "two"


def test_a_directory_that_became_a_file_and_back(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    backup(enrolled_client, "--source", source)
    shutil.rmtree(source / "home")
    (source / "home").write_text("a file now")
    backup(enrolled_client, "--source", source)
    assert copy_of(enrolled_client, source / "home").read_text() == "a file now"
    (source / "home").unlink()
    (source / "home").mkdir()
    (source / "home/again").write_text("x")
    backup(enrolled_client, "--source", source)
    assert copy_of(enrolled_client, source / "home/again").exists()


def test_a_current_that_somebody_put_there_is_made_usable(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    backup(enrolled_client, "--source", source)
    make_due(enrolled_client)
    (snapshot,) = snapshots(enrolled_client)
    current = enrolled_client.current
    # A plain directory, of which no snapshot can be taken; a copy has the attributes.
    run_program(["btrfs", "subvolume", "delete", current])
    run_program(["cp", "-a", current.with_name(snapshot), current])
    backup(enrolled_client, "--source", source)
    assert len(snapshots(enrolled_client)) == 2
    assert copy_of(enrolled_client, source / "home/a b").read_text() == "spaces"
    # And a read-only one.
    make_due(enrolled_client)
    run_program(["btrfs", "property", "set", "-ts", current, "ro", "true"])
    (source / "home/a b").write_text("others")
    backup(enrolled_client, "--source", source)
    assert copy_of(enrolled_client, source / "home/a b").read_text() == "others"
    assert len(snapshots(enrolled_client)) == 3


def replace(file: Path, content: str) -> None:
    """As an editor does that writes a new file and renames it."""
    new = file.with_name("new")
    new.write_text(content)
    new.rename(file)


def test_files_that_were_one_and_are_several_now(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    # rsync --inplace would write what is for one of them into all.
    names = ["a", "b", "c", "d"]
    (source / "a").write_text("they are one")
    for name in names[1:]:
        (source / name).hardlink_to(source / "a")
    backup(enrolled_client, "--source", source)
    copies = {name: copy_of(enrolled_client, source / name) for name in names}
    replace(source / "b", "b is not what it was")
    replace(source / "c", "nor is c")
    outcome = backup(enrolled_client, "--source", source, "--retry-number", "0")
    assert outcome.stderr == ""
    for name, copy in copies.items():
        assert copy.read_text() == (source / name).read_text(), name
        assert copy.stat().st_mtime_ns == (source / name).stat().st_mtime_ns, name
    assert copies["a"].samefile(copies["d"])
    # What is still one and changes is brought as one.
    with (source / "a").open("a") as file:
        file.write(" still")
    (source / "c").chmod(0o600)
    backup(enrolled_client, "--source", source)
    assert copies["d"].read_text() == "they are one still"
    assert copies["a"].samefile(copies["d"])


def test_files_that_differ_by_their_mode_alone_since_they_were_one(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    (source / "a").write_text("the same")
    (source / "a").chmod(0o644)
    (source / "b").hardlink_to(source / "a")
    backup(enrolled_client, "--source", source)
    (source / "b").unlink()
    shutil.copy2(source / "a", source / "b")
    (source / "b").chmod(0o600)
    backup(enrolled_client, "--source", source)
    modes = [
        copy_of(enrolled_client, source / name).stat().st_mode & 0o777 for name in "ab"
    ]
    assert modes == [0o644, 0o600]


def test_they_are_told_apart_in_a_tree_that_was_put_back(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    """A discard comes between the two transfers: in the copy they are one again."""
    (source / "a").write_text("one")
    (source / "b").hardlink_to(source / "a")
    backup(enrolled_client, "--source", source)
    replace(source / "b", "another")
    store, host = Store(enrolled_client.store), enrolled_client.host
    changes = Changes(store.current(host), None)
    changes.numbers.add(copy_of(enrolled_client, source / "a").stat().st_ino)
    assert separate(store, host, changes) == 1
    for path in store.lock_path(host).parent.iterdir():
        shutil.chown(path, *path.parent.stat()[4:6])
    run_program(["btrfs", "subvolume", "delete", store.current(host)])
    backup(enrolled_client, "--source", source)
    for name in "ab":
        copy = copy_of(enrolled_client, source / name)
        assert copy.read_text() == (source / name).read_text(), name


def test_long_names_are_told_apart_too(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    """rsync's log does not hold all of them."""
    deep = "/".join(["d" * 250] * 10)
    (source / deep).mkdir(parents=True)
    (source / deep / "a").write_text("one")
    (source / deep / "b").hardlink_to(source / deep / "a")
    backup(enrolled_client, "--source", source)
    replace(source / deep / "a", "another")
    backup(enrolled_client, "--source", source, "--retry-number", "0")
    for name in "ab":
        copy = copy_of(enrolled_client, source / deep / name)
        assert copy.read_text() == (source / deep / name).read_text(), name


def test_mount_points_stay_without_what_is_in_them(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    (source / "mnt").mkdir()
    (source / "disc").mkdir()
    run_program(["mount", "-t", "tmpfs", "none", source / "mnt"])
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as image:
        try:
            image.truncate(128 << 20)
            run_program(["mkfs.btrfs", "--quiet", image.name])
            run_program(["mount", "-o", MOUNT_OPTIONS, image.name, source / "disc"])
            (source / "mnt/secret").write_text("in memory only")
            (source / "disc/kept").write_text("on a disc")
            backup(enrolled_client, "--source", source)
        finally:
            unmount(source / "mnt")
            unmount(source / "disc")
    assert list(copy_of(enrolled_client, source / "mnt").iterdir()) == []
    assert copy_of(enrolled_client, source / "disc/kept").exists()


def test_a_clock_that_was_a_year_ahead_keeps_no_snapshot_away(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    backup(enrolled_client, "--source", source)
    host = enrolled_client.store / enrolled_client.host
    (name,) = snapshots(enrolled_client)
    made = parse_snapshot_name(name)
    assert made is not None
    ahead = format_snapshot_name(made + timedelta(days=365))
    (host / name).rename(host / ahead)
    (source / "new").write_text("new")
    outcome = backup(enrolled_client, "--source", source, "--verbose")
    (newest,) = (name for name in snapshots(enrolled_client) if name != ahead)
    assert f"snapshot {newest}" in outcome.stderr
    # The next one is not due, and which one is the newest is told rightly.
    outcome = backup(enrolled_client, "--source", source, "--verbose")
    assert f"no new snapshot was due (newest: {newest})" in outcome.stderr
    # current is lost: it begins anew as the newest copy, not as the misdated one.
    run_program(["btrfs", "subvolume", "delete", host / "current"])
    (enrolled_client.store / f".byteback/hosts/{enrolled_client.host}.state").unlink()
    backup(enrolled_client, "--source", source)
    assert copy_of(enrolled_client, source / "new").exists()
