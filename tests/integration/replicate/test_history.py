"""History arrives whole: name for name and byte for byte, and is kept."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import CONFIGURATION, USER
from tests.integration.programs import run_program
from tests.integration.replicate.conftest import VOLUME_SIZE
from tests.integration.replicate.trees import differences
from tests.integration.replicate.world import First, Second, second_server
from tests.integration.sealing.store import become
from tests.integration.source_tree import MIB, make_source_tree

Servers = tuple[First, Second]
DATABASE = 24 * MIB


@pytest.fixture(scope="module")
def servers(first: First) -> Iterator[Servers]:
    """Both, in network namespaces of their own, with a cable between them."""
    with second_server(first, VOLUME_SIZE, is_apart=True) as second:
        second.set_up()
        yield first, second


def used(volume: Path) -> int:
    """Bytes that a volume holds, once all is on the disc."""
    run_program(["btrfs", "filesystem", "sync", volume])
    view = os.statvfs(volume)
    return (view.f_blocks - view.f_bfree) * view.f_frsize


def change(source: Path) -> None:
    """Change something of each kind, as a day of a machine's life does."""
    kinds = source / "kinds"
    with (kinds / "large").open("r+b") as file:
        file.seek(MIB)
        file.write(b"another few bytes")
    shutil.rmtree(kinds / "empty-directory")
    (kinds / "empty-directory").write_text("a file now")
    (kinds / "fifo").unlink()
    (kinds / "fifo").mkdir()
    (source / "rights" / "stranger").chmod(0o751)
    run_program(["setfacl", "--modify", "user:54321:r", source / "rights" / "acl"])
    (source / "names" / "plain").unlink()
    (source / "names" / "deep").rename(source / "names" / "deeper")


def separate(first: First, client: str) -> None:
    """Two names of one file become two files of one time and size (D34).

    In the first server's tree itself: rsync by hand would leave them one file.
    """
    kinds = first.root / client / "current" / "kinds"
    with become(first.user):
        for path in (kinds / "one name", kinds / "other name"):
            path.unlink()
            path.write_bytes(path.name[:3].encode())
            os.utime(path, ns=(10**18, 10**18))


def database(path: Path, day: int) -> None:
    """A file of which a hundredth changes each day, in pages of 4 KiB."""
    if day == 0:
        path.write_bytes(os.urandom(DATABASE))
        return
    with path.open("r+b") as file:
        for page in range(day, DATABASE // 4096, 100):
            file.seek(page * 4096)
            file.write(os.urandom(4096))


def sealed(top: Path) -> set[str]:
    """The snapshots of a store that are root's."""
    return {
        f"{path.parent.name}/{path.name}"
        for path in top.glob("*/2*")
        if path.stat().st_uid == 0
    }


def test_all_history_arrives(servers: Servers, tmp_path: Path) -> None:
    """Links, devices, ACLs, sparse and large changing files of three clients.

    Between two stores that are sealed, as the unit of systemd runs it.
    """
    first, second = servers
    source, data = tmp_path / "source", tmp_path / "data"
    make_source_tree(source)
    (source / "kinds" / "one name").write_text("one")
    os.link(source / "kinds" / "one name", source / "kinds" / "other name")
    data.mkdir()
    (CONFIGURATION / "server.toml").write_text("sealed = true\n")
    second.settings("sealed = true\n")
    before = used(first.root), used(second.root)
    names: dict[str, list[str]] = {"www": [], "db": [], "small": []}
    for day, clients in enumerate((("www", "db", "small"), ("www", "db"), ("www",))):
        if day == 1:
            change(source)
        first.fill("www", source)
        if day == 2:
            separate(first, "www")
        if "db" in clients:
            database(data / "table", day)
            first.fill("db", data, "--block-size=4096")
        first.write("small", "etc/file", b"%d" % day)
        for client in clients:
            names[client].append(first.snapshot(client, 9 - day))
    made = {f"{client}/{name}" for client, each in names.items() for name in each}
    run_program([first.programs / "byteback-prune", "--prune"])
    assert sealed(first.root) == made
    shown = second.replicate("--dry-run").stdout
    assert shown.count("would bring") == len(made) == 6
    assert not (second.root / "www").exists()
    outcome = second.replicate_as_unit("--all")
    assert (outcome.stdout, outcome.stderr) == ("", "")
    for client, each in names.items():
        assert second.snapshots(client) == each
        for name in each:
            here, there = second.root / client / name, first.root / client / name
            assert differences(there, here) == []
        assert second.state(client) == "whole"
    grown = used(first.root) - before[0], used(second.root) - before[1]
    assert grown[1] < 1.1 * grown[0], grown
    # What was brought is read-only, and the second server's own user's.
    path = second.root / "www" / names["www"][0]
    assert path.stat().st_uid == 4711
    shown = second.as_user(
        "btrfs", "property", "get", "-t", "subvol", path, "ro"
    ).stdout
    assert shown.strip() == "ro=true"
    # Then it is root's here, too, and history goes on from it.
    second.program("byteback-prune", "--prune")
    assert sealed(second.root) == made
    names["small"].append(first.snapshot("small", 5))
    assert second.replicate("small").stderr == ""
    assert second.snapshots("small") == names["small"]
    last = Path("small", names["small"][-1])
    assert differences(first.root / last, second.root / last) == []
    (CONFIGURATION / "server.toml").write_text("")
    second.settings("")


def test_a_round_without_news_is_one_session(servers: Servers) -> None:
    first, second = servers
    first.history("quiet", 3, 2)
    second.replicate()
    before = first.sshd.log.read_text().count("Starting session")
    outcome = second.replicate()
    assert (outcome.stdout, outcome.stderr) == ("", "")
    assert first.sshd.log.read_text().count("Starting session") == before + 1
    assert second.round()["missing"] == 0


def test_pruning_on_either_side_harms_neither(servers: Servers) -> None:
    first, second = servers
    old, middle, new = first.history("pruned", 30, 20, 10)
    second.replicate()
    # The first one's goes: ours stays.
    first.delete("pruned", old)
    second.replicate()
    assert second.snapshots("pruned") == [old, middle, new]
    # Ours goes: it is not fetched again, and nothing is said.
    path = second.root / "pruned" / middle
    second.as_user("btrfs", "property", "set", "-t", "subvol", path, "ro", "false")
    second.as_user("btrfs", "subvolume", "delete", path)
    assert second.replicate().stderr == ""
    assert second.snapshots("pruned") == [old, new]
    assert {p.name for p in (first.root / "pruned").glob("2*")} == {middle, new}
    # And history goes on.
    newer = first.history("pruned", 1)[0]
    second.replicate()
    assert second.snapshots("pruned") == [old, new, newer]
    assert (second.root / "pruned" / newer / "etc" / "day").read_text() == "1"


def test_verify(servers: Servers) -> None:
    """A file that changed behind btrfs's back is found, and the control is well."""
    first, second = servers
    (name,) = first.history("verified", 5)
    second.replicate("verified")
    shown = second.replicate("--verify", "verified").stdout
    assert shown == f"verified/{name} is the same on both servers\n"
    path = second.root / "verified" / name
    day = path / "etc" / "day"
    before = day.stat()
    second.as_user("btrfs", "property", "set", "-t", "subvol", path, "ro", "false")
    day.write_text("?")
    os.utime(day, ns=(before.st_atime_ns, before.st_mtime_ns))
    second.as_user("btrfs", "property", "set", "-t", "subvol", path, "ro", "true")
    told = second.replicate("--verify", "verified", status=1).stderr
    assert f"verified/{name}" in told
    assert day.read_text() == "?"


def change_unseen(path: Path, content: bytes) -> None:
    """Write other contents of the same length, and put the time back."""
    before = path.stat()
    assert before.st_size == len(content)
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def contents(second: Second, client: str, snapshot: str) -> dict[str, bytes]:
    """All files of a snapshot on the second server."""
    top = second.root / client / snapshot
    return {
        os.fsdecode(os.fsencode(path.relative_to(top))): path.read_bytes()
        for path in top.rglob("*")
        if path.is_file()
    }


def test_changes_that_no_size_and_no_time_shows(servers: Servers) -> None:
    """Also where the first server has lost the one before, or a run was cut off."""
    first, second = servers
    paths = ("etc/plain", "deep/er/new\nline", "one", "linked", "mode", "same")
    client = first.client("unseen") / "current"
    for path in paths:
        first.write("unseen", path, b"before")
    (client / "linked").unlink()
    os.link(client / "one", client / "linked")
    old = first.snapshot("unseen", 9)
    second.replicate("unseen")
    changed = dict.fromkeys(paths[:4], b"after!")
    for path in paths[:3]:
        change_unseen(client / path, b"after!")
    (client / "mode").chmod(0o640)
    new = first.snapshot("unseen", 8)
    second.replicate("unseen")
    assert contents(second, "unseen", old) == dict.fromkeys(paths, b"before")
    assert contents(second, "unseen", new) == {
        **dict.fromkeys(paths, b"before"),
        **changed,
    }
    place = second.root / "unseen" / new
    assert differences(place, first.root / "unseen" / new) == []
    # What it could be compared with is gone.
    change_unseen(client / "same", b"later!")
    newer = first.snapshot("unseen", 7)
    for name in (old, new):
        first.delete("unseen", name)
    second.replicate("unseen")
    assert contents(second, "unseen", newer)["same"] == b"later!"
    # Parts of a snapshot have arrived that is on the first server no longer.
    change_unseen(second.root / "unseen" / "current" / "mode", b"parts!")
    place = second.root / ".byteback" / "hosts" / "unseen.replica"
    note = json.loads(place.read_text())
    assert note["under_way"] == ""
    note["under_way"] = "2020-01-01T00:00+0000,00"
    place.write_text(json.dumps(note))
    newest = first.snapshot("unseen", 6)
    second.replicate("unseen")
    assert contents(second, "unseen", newest)["mode"] == b"before"
    assert json.loads(place.read_text())["under_way"] == ""


def attach(path: Path, value: str, acl: str) -> None:
    """Give a file an attribute and an ACL."""
    run_program(["setfattr", "--name", "user.kind", "--value", value, path])
    run_program(["setfacl", "--modify", acl, path])


def test_acls_that_rsync_alone_loses(servers: Servers, tmp_path: Path) -> None:
    """With new contents, another attribute, and of a new directory that has both."""
    first, second = servers
    source, acl = tmp_path / "source", "user:54321:r"
    (source / "old").mkdir(parents=True)
    for name in ("contents", "attribute", "both"):
        (source / name).write_text("before")
    for path in (*source.iterdir(), source):
        attach(path, "old", acl)
    made = []
    for day in (9, 8, 7):
        for _ in range(3):  # until rsync has lost none
            first.fill("acls", source)
        made.append(first.snapshot("acls", day))
        (source / "contents").write_text(f"contents of day {day}")
        if day == 9:
            (source / "both").write_text("longer than before")
            (source / "new").mkdir()
            for name in ("attribute", "both", "new", "old"):
                attach(source / name, "new", acl)
    second.replicate("acls")
    for name in made:
        here, there = second.root / "acls" / name, first.root / "acls" / name
        assert "user.rsync.%aacl" in os.listxattr(there / "contents")
        assert differences(there, here) == []


def test_what_the_first_server_cannot_read(servers: Servers) -> None:
    """As in a tree of the old tool's, with files of root's: the rest is brought."""
    first, second = servers
    first.history("unreadable", 6)
    path = first.root / "unreadable" / "current" / "etc" / "secret"
    path.write_text("root's")
    path.chmod(0o600)
    new = first.snapshot("unreadable", 5)
    told = second.replicate("--verbose", "unreadable").stderr
    assert "the first server cannot read all of it" in told
    assert new in second.snapshots("unreadable")
    assert not (second.root / "unreadable" / new / "etc" / "secret").exists()
    assert second.state("unreadable") == "partial"
    assert second.replicate("unreadable").stderr == ""


def test_a_lost_note(servers: Servers) -> None:
    """A copy that is not known for one is no longer fetched, until it is adopted."""
    first, second = servers
    names = first.history("adopted", 9)
    second.replicate("adopted")
    (second.root / ".byteback" / "hosts" / "adopted.replica").unlink()
    names += first.history("adopted", 8)
    told = second.replicate("adopted", status=1).stderr
    assert "'adopted' is a client of this server itself" in told
    second.replicate("--adopt", "adopted", status=2)
    where = ("--from", second.destination)
    second.replicate(*where, "--adopt", "nobody", status=10)
    second.replicate(*where, "--adopt", "adopted")
    assert second.snapshots("adopted") == names


def test_one_client_alone(servers: Servers) -> None:
    first, second = servers
    first.history("alone", 5)
    first.history("other", 5)
    second.replicate("--from", second.destination, "ALONE")
    assert second.snapshots("alone")
    assert not (second.root / "other").exists()


def test_two_runs_at_once(servers: Servers) -> None:
    _, second = servers
    lock = second.root / ".byteback" / "replicate.lock"
    program = second.first.programs / "byteback-replicate"
    refused = second.run("flock", lock, program, status=11)
    assert "cannot lock" in refused.stderr
    assert second.run("id", "-u", USER).stdout.strip() == "4711"
