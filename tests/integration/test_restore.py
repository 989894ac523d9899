"""Files come back as they were: through a real sshd, confined, by real rsyncs."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from byteback.model.listing import HEADER
from byteback.system.confinement import landlock
from tests.integration.conftest import EnrolledClient
from tests.integration.programs import Outcome, require_program, run_program
from tests.waiting import wait_until

SOURCE = Path("/home/data")
NAMES = [
    b"plain",
    b"with space",
    b"new\nline",
    b"-dash",
    b"#hash",
    b"\xff\xfe not utf-8",
    "schön".encode(),
    b"a*b",
    b"[set]",
    b"{a,b}",
    b"back\\slash",
    b"quo'\"te",
    b"$(id)",
    b"~tilde",
    b"a:b",
    b"..x",
    b"trailing ",
]
LONG_AGO_NS = 981_173_106_123_456_789  # 2001, with nanoseconds


@dataclass(frozen=True)
class Restorer:
    """byteback-restore on the enrolled client."""

    client: EnrolledClient
    work: Path  # where it is run

    def run(
        self, *words: str | Path, check: bool = True, cwd: Path | None = None
    ) -> Outcome:
        """Run it and return how it ended."""
        program = self.client.bin / "byteback-restore"
        return run_program([program, *words], check=check, cwd=cwd or self.work)

    def entries(self, *words: str | Path) -> list[dict[str, Any]]:
        """The names that it lists, from --json."""
        outcome = self.run("--json", *words)
        return [json.loads(line) for line in outcome.stdout.splitlines()]

    def backup(self) -> None:
        """Back up SOURCE, and /etc/hosts."""
        run_program(
            [
                *(self.client.bin / "byteback-backup", "--source", SOURCE),
                *("--source", "/etc/hosts"),
            ]
        )

    def snapshot(self, name: str) -> None:
        """A snapshot of current with a name of the test's choice."""
        current = self.client.current
        run_program(
            [
                *("runuser", "-u", self.client.user.name, "--", "btrfs", "subvolume"),
                *("snapshot", "-r", current, current.parent / name),
            ]
        )


@pytest.fixture
def source() -> Iterator[Path]:
    """A tree with everything that is hard to restore."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    SOURCE.mkdir(parents=True)
    try:
        make_names(SOURCE / "names")
        make_kinds(SOURCE / "kinds")
        make_metadata(SOURCE / "metadata")
        yield SOURCE
    finally:
        shutil.rmtree(SOURCE, ignore_errors=True)


@pytest.fixture
def restorer(enrolled_client: EnrolledClient, source: Path, tmp_path: Path) -> Restorer:
    """A client whose tree has been backed up once, with one snapshot."""
    work = tmp_path / "work"
    work.mkdir(mode=0o711)
    found = Restorer(enrolled_client, work)
    found.backup()
    return found


def make_names(directory: Path) -> None:
    """Files whose names break whatever splits at spaces or lines, or knows globs."""
    directory.mkdir()
    for name in NAMES:
        (directory / os.fsdecode(name)).write_bytes(name)


def make_kinds(directory: Path) -> None:
    """One of each kind of file."""
    directory.mkdir()
    (directory / "file").write_bytes(b"x" * 100_000)
    (directory / "empty").touch()
    (directory / "hard").hardlink_to(directory / "file")
    (directory / "link").symlink_to("file")
    (directory / "dangling").symlink_to(os.fsdecode(b"no/such \xff\n"))
    (directory / "emptydir").mkdir(mode=0o700)
    os.mkfifo(directory / "fifo", 0o640)
    os.mknod(directory / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(directory / "disc", stat.S_IFBLK | 0o660, os.makedev(7, 300))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "socket"))
    with (directory / "sparse").open("wb") as file:
        file.truncate(8 << 20)
        file.seek(4 << 20)
        file.write(b"in the middle")


def make_metadata(directory: Path) -> None:
    """Owners that the server does not know, odd modes, ACLs, attributes, times."""
    directory.mkdir()
    for name, mode in (("setuid", 0o4755), ("secret", 0o000), ("sticky", 0o3770)):
        path = directory / name
        path.mkdir() if name == "sticky" else path.write_text(name)
        os.chown(path, 54321, 65432)
        path.chmod(mode)
    shared = directory / "shared"
    shared.mkdir()
    shared.chmod(0o3770)
    run_program(["setfacl", "-m", "g:54321:rwx", shared])
    acl = directory / "acl"
    acl.write_text("acl")
    run_program(["setfacl", "-m", "u:12345:r--,g:54321:rw-", acl])
    (directory / "inherit").mkdir()
    run_program(["setfacl", "-d", "-m", "u:12345:rwx", directory / "inherit"])
    os.setxattr(directory / "inherit", "user.note", b"rsync drops one or the other")
    os.setxattr(acl, "user.note", b"with\0nul")
    os.setxattr(acl, "trusted.note", b"root's")
    shutil.copy("/bin/true", directory / "capable")
    run_program([require_program("setcap"), "cap_net_raw+ep", directory / "capable"])
    old = directory / "old"
    old.write_text("old")
    for path in (old, directory / "sticky", directory):
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))


def describe(top: Path) -> dict[str, dict[str, Any]]:
    """All that can be known about each file below ``top``, by relative name."""
    found = {}
    links: dict[int, str] = {}
    paths = [top, *(Path(d) / n for d, ds, fs in os.walk(top) for n in ds + fs)]
    for path in sorted(paths):
        status = path.lstat()
        name = str(path.relative_to(top))
        is_file = stat.S_ISREG(status.st_mode)
        found[name] = {
            "mode": oct(status.st_mode),
            "owner": (status.st_uid, status.st_gid),
            "mtime_ns": status.st_mtime_ns,
            "device": status.st_rdev,
            "target": str(path.readlink()) if path.is_symlink() else None,
            "content": path.read_bytes() if is_file else None,
            "same as": links.setdefault(status.st_ino, name),
            "attributes": {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
            },
        }
    return found


def test_restores_every_kind_of_file_exactly(restorer: Restorer) -> None:
    """Bytes, owners, modes, times, links, devices, ACLs and attributes."""
    before = restorer.work.stat()
    restorer.run("--restore", SOURCE)
    after = restorer.work.stat()
    restored = restorer.work / "current" / "home" / "data"
    assert describe(restored) == describe(SOURCE)
    assert (restored / "kinds/sparse").stat().st_blocks * 512 < 1 << 20
    assert (after.st_mode, after.st_uid) == (before.st_mode, before.st_uid)
    above = restored.parent.stat()
    original = SOURCE.parent.stat()
    assert (above.st_mode, above.st_uid) == (original.st_mode, original.st_uid)


def test_acls_survive_a_change_of_attributes(restorer: Restorer) -> None:
    """The server's rsync drops them then, and they have to be sent once more."""
    for name in ("acl", "inherit"):
        os.setxattr(SOURCE / "metadata" / name, "user.note", b"changed")
    restorer.backup()
    for name in ("user.note", "trusted.note"):
        os.removexattr(SOURCE / "metadata/acl", name)
    restorer.backup()
    restorer.run("--restore", SOURCE / "metadata")
    restored = restorer.work / "current/home/data/metadata"
    assert describe(restored) == describe(SOURCE / "metadata")


def test_lists_what_was_backed_up(restorer: Restorer) -> None:
    """Owner, mode, device and target as on the client, not as in the store."""
    entries = {e["path"]: e for e in restorer.entries(f"{SOURCE}/**/{{*,.*}}")}
    assert entries[f"{SOURCE}/kinds/null"]["device"] == [1, 3]
    assert entries[f"{SOURCE}/kinds/link"]["target"] == "file"
    assert entries[f"{SOURCE}/metadata/setuid"]["mode"] == stat.S_IFREG | 0o4755
    assert entries[f"{SOURCE}/metadata/setuid"]["uid"] == 54321
    assert entries[f"{SOURCE}/metadata/old"]["mtime_ns"] == LONG_AGO_NS
    for path, entry in entries.items():
        status = os.lstat(path)
        assert entry["mode"] == status.st_mode, path
        assert (entry["uid"], entry["gid"]) == (status.st_uid, status.st_gid), path
        if not stat.S_ISDIR(status.st_mode):
            assert entry["size"] == status.st_size, path
    for name in NAMES:
        assert f"{SOURCE}/names/{os.fsdecode(name)}" in entries
    table = restorer.run("-H", f"{SOURCE}/names/*", f"{SOURCE}/kinds/*").stdout
    assert "new\\nline" in table
    assert "\\xff\\xfe" in table
    header, dashes, *rows = table.splitlines()
    assert header.split() == list(HEADER)
    assert set(dashes) == {"-"}
    assert {row[header.index("path")] for row in rows} == {"/"}


def test_restores_single_files_of_any_name(restorer: Restorer) -> None:
    """Each name alone, and many at once, are found and pass rsync's own check."""
    words = [
        "".join("\\" + c if c in "\\*?[]{}" else c for c in os.fsdecode(name))
        for name in NAMES
    ]
    restorer.run("-r", "--", *(f"{SOURCE}/names/{word}" for word in words))
    restored = restorer.work / "current/home/data/names"
    assert {os.fsencode(path.name) for path in restored.iterdir()} == set(NAMES)
    for name in NAMES:
        assert (restored / os.fsdecode(name)).read_bytes() == name
    assert restorer.run("-l", "./-dash", cwd=SOURCE / "names").status == 0


def test_to_and_in_place_leave_directories_above_alone(restorer: Restorer) -> None:
    """An existing file keeps its owner and mode; a missing one is made as it was."""
    target = restorer.work / "target"
    (target / "home").mkdir(parents=True)
    (target / "home").chmod(0o750)
    os.chown(target / "home", 7, 7)
    restorer.run("-r", "--to", target, f"{SOURCE}/metadata/old")
    assert stat.S_IMODE((target / "home").stat().st_mode) == 0o750
    assert (target / "home").stat().st_uid == 7
    made = (target / "home/data/metadata").stat()
    assert made.st_mtime_ns == LONG_AGO_NS
    assert (target / "home/data/metadata/old").read_text() == "old"

    shutil.rmtree(SOURCE / "metadata")
    SOURCE.chmod(0o701)
    restorer.run("-r", "--in-place", "--yes", f"{SOURCE}/metadata/{{old,setuid}}")
    assert stat.S_IMODE(SOURCE.stat().st_mode) == 0o701
    assert (SOURCE / "metadata").stat().st_mtime_ns == LONG_AGO_NS
    assert stat.S_IMODE((SOURCE / "metadata/setuid").stat().st_mode) == 0o4755
    assert sorted(p.name for p in (SOURCE / "metadata").iterdir()) == ["old", "setuid"]


def test_in_place_puts_back_what_was_damaged_today(restorer: Restorer) -> None:
    """Unasked nothing is replaced; then it is, though the damaged file is newer."""
    refused = restorer.run("-r", "--in-place", "/etc/hosts", check=False)
    assert refused.status == 2
    assert "--yes" in refused.stderr
    plain = SOURCE / "names/plain"
    plain.write_text("damaged")
    dry = restorer.run("-r", "--in-place", "--dry-run", plain)
    assert dry.stdout.split() == ["replace", "home/data/names/plain"]
    assert "--keep-newer" in dry.stderr
    assert plain.read_text() == "damaged"
    done = restorer.run("-v", "-r", "--in-place", "--yes", plain)
    assert "restored 1 file" in done.stderr
    assert plain.read_text() == "plain"
    again = restorer.run("-v", "-r", "--in-place", "--yes", plain)
    assert "nothing to restore" in again.stderr
    plain.write_text("damaged again")
    restorer.run("-r", "--in-place", "--yes", "--overwrite", plain)
    assert plain.read_text() == "plain"


def test_to_asks_only_where_it_replaces_something(restorer: Restorer) -> None:
    target = restorer.work / "target"
    restorer.run("-r", "--to", target, SOURCE)
    restorer.run("-r", "--to", target, SOURCE)
    there = target / "home/data/names/plain"
    there.write_text("mine")
    refused = restorer.run("-r", "--to", target, SOURCE, check=False)
    assert refused.status == 2
    assert "--yes" in refused.stderr
    assert there.read_text() == "mine"
    restorer.run("-r", "--to", target, "--keep-newer", SOURCE)
    assert there.read_text() == "mine"
    restorer.run("-r", "--to", target, "--yes", SOURCE)
    assert describe(target / "home/data") == describe(SOURCE)


def test_a_dry_run_says_what_would_be_done(restorer: Restorer) -> None:
    """Whatever is in the way, in names as they are, and though some cannot be done."""
    kept = SOURCE / "names/it is newer"
    kept.write_text("as it was")
    restorer.backup()
    for path in (SOURCE / "names/plain", SOURCE / "kinds/emptydir"):
        path.rmdir() if path.is_dir() else path.unlink()
        path.symlink_to("elsewhere")
    (SOURCE / "names/with space").unlink()
    (SOURCE / "kinds/link").unlink()
    kept.write_text("changed")
    os.utime(kept, (1, 1))
    (SOURCE / "names/-dash").unlink()
    (SOURCE / "names/-dash").mkdir()
    (SOURCE / "names/-dash/full").touch()
    (SOURCE / "names/back\\slash").unlink()
    dry = restorer.run("-r", "-n", "--in-place", SOURCE, check=False)
    assert dry.status == 3
    assert "not restored: '/home/data/names/-dash': " in dry.stderr
    assert "1 name of what was asked for could not be restored" in dry.stderr
    # A file with attributes of both root and users is always to be adjusted.
    files = [
        line for line in dry.stdout.splitlines() if not line.endswith(("/", "/acl"))
    ]
    assert sorted(files) == [
        "create  home/data/kinds/link",
        "create  home/data/names/back\\\\slash",
        "create  home/data/names/with space",
        "replace home/data/names/it is newer",
        "replace home/data/names/plain",
    ]
    assert "replace home/data/kinds/emptydir/" in dry.stdout
    done = restorer.run("-r", "--yes", "--in-place", SOURCE, check=False)
    assert done.status == 3
    told = [line for line in dry.stderr.splitlines() if "--keep-newer" not in line]
    assert done.stderr.splitlines() == told
    (SOURCE / "names/-dash/full").unlink()
    restorer.run("-r", "--yes", "--in-place", SOURCE)
    after = restorer.run("-r", "-n", "--in-place", SOURCE).stdout
    assert after.split() in ([], ["adjust", "home/data/metadata/acl"])
    target = restorer.run("-r", "-n", "--to", "x", SOURCE / "names/plain").stdout
    made = ["home/", "home/data/", "home/data/names/", "home/data/names/plain"]
    assert target.splitlines() == [f"create  {name}" for name in made]


@pytest.fixture
def taken_over(tmp_path: Path) -> Iterator[Path]:
    """An ssh that does what an rsync in a hostile server's hands might: its results."""
    if not landlock.is_available():
        pytest.skip("Landlock does not work here")
    results = tmp_path / "results"
    results.mkdir()
    target = tmp_path / "work" / "target"
    ssh = Path("/usr/local/sbin/ssh")
    ssh.write_text(
        f"""#!/bin/sh
case "$*" in *--sender*)
    {{ touch "{results}/outside"; touch "{target}/inside"; }} 2>/dev/null
esac
exec /usr/bin/ssh "$@"
"""
    )
    ssh.chmod(0o755)
    yield results
    ssh.unlink()


def test_a_restore_writes_nowhere_else(restorer: Restorer, taken_over: Path) -> None:
    """Whatever the server sends, nor in a dry run at all; in place it writes."""
    target = restorer.work / "target"
    target.mkdir()
    restorer.run("-r", "--dry-run", "--to", target, SOURCE)
    assert list(target.iterdir()) == []
    restorer.run("-r", "--to", target, SOURCE)
    assert describe(target / "home/data") == describe(SOURCE)
    assert (target / "inside").exists()
    assert list(taken_over.iterdir()) == []
    restorer.run("-r", "--in-place", "--yes", SOURCE)
    assert (taken_over / "outside").exists()


def test_the_root_itself_is_not_touched(restorer: Restorer) -> None:
    """Restoring all of it gives no directory of the user's the root's metadata."""
    target = restorer.work / "target"
    target.mkdir(mode=0o700)
    os.chown(target, 7, 7)
    restorer.run("-r", "--to", target, "/")
    assert (stat.S_IMODE(target.stat().st_mode), target.stat().st_uid) == (0o700, 7)
    assert describe(target / "home/data") == describe(SOURCE)
    assert (target / "etc/hosts").read_text() == Path("/etc/hosts").read_text()
    restorer.run("-r", "/")
    assert describe(restorer.work / "current/home/data") == describe(SOURCE)


def test_versions_are_told_apart_and_restored(restorer: Restorer) -> None:
    """--all finds each version, --snapshot one of them, and gone files are found."""
    restorer.snapshot("2026-01-01T00:00+0000")
    plain = SOURCE / "names/plain"
    plain.write_text("second version")
    (SOURCE / "names/a:b").unlink()
    restorer.backup()
    restorer.snapshot("2026-01-02T00:00+0000")

    versions = restorer.entries("--all", plain)
    assert [e["size"] for e in versions] == [len("second version"), len("plain")]
    # Either the snapshot that the first backup took, or the test's: both hold it.
    assert versions[1]["snapshot"] not in ("current", "2026-01-02T00:00+0000")
    assert versions[1]["first_seen"] == "2026-01-01T00:00+0000"
    copies = restorer.entries("--verbose", plain)
    assert len(copies) >= 3
    assert copies[-1]["snapshot"] == "current"
    [gone] = restorer.entries(SOURCE / "names/a:b")
    assert gone["snapshot"] not in ("current", "2026-01-02T00:00+0000")

    restorer.run("-r", "-s", "2026-01-01T00:00+0000", plain)
    restored = restorer.work / "2026-01-01T00:00+0000/home/data/names/plain"
    assert restored.read_text() == "plain"
    restorer.run("-r", "--all", "--to", "versions", plain)
    found = sorted(
        p.read_text() for p in (restorer.work / "versions").glob(f"*{plain}")
    )
    assert found == ["plain", "second version"]


def test_an_unfinished_backup_is_not_the_newest_copy(restorer: Restorer) -> None:
    """The newest snapshot comes first then, and the listing says why."""
    restorer.snapshot("2026-01-01T00:00+0000")
    [before] = restorer.entries("/etc/hosts")
    assert before["snapshot"] == "current"
    plain = SOURCE / "names/plain"
    plain.write_bytes(os.urandom(30 << 20))
    rsync_flags = restorer.client.configuration / "rsync_flags"
    rsync_flags.write_text("--bwlimit=4M\n")
    program = restorer.client.bin / "byteback-backup"
    arriving = restorer.client.current / plain.relative_to("/")
    with subprocess.Popen([program, "--source", SOURCE]) as backup:
        wait_until(lambda: arriving.stat().st_size > 1 << 20)
        backup.kill()
    assert backup.returncode == -signal.SIGKILL
    outcome = restorer.run("--json", "/etc/hosts")
    # That of the first backup.
    newest = json.loads(outcome.stdout)["snapshot"]
    assert newest not in ("current", "2026-01-01T00:00+0000")
    assert "never finished" in outcome.stderr


def test_no_match_and_no_snapshot_are_failures(restorer: Restorer) -> None:
    """They say so, and exit with a status that a script can test."""
    nothing = restorer.run("/no/such/file", check=False)
    assert nothing.status == 1
    assert "nothing in the backups matches '/no/such/file'" in nothing.stderr
    snapshot = restorer.run("-s", "2001*", "/etc/hosts", check=False)
    assert snapshot.status == 9
    assert "there is no snapshot '2001*'" in snapshot.stderr
    odd = restorer.run("-s", "../x", "/etc/hosts", check=False)
    assert odd.status == 2
    assert list(restorer.work.iterdir()) == []


def test_a_failed_transfer_is_a_failure(restorer: Restorer) -> None:
    """A file that cannot be written gives status 3, a dead server 12."""
    target = restorer.work / "target"
    (target / "home/data/names/plain/in the way").mkdir(parents=True)
    words = ("-r", "--to", target, f"{SOURCE}/names/*")
    partial = restorer.run(*words, check=False)
    assert partial.status == 3
    assert "plain" in partial.stderr
    assert (target / "home/data/names/a:b").read_text() == "a:b"
    dead = restorer.run("-d", "ssh://127.0.0.1:1/", "/etc/hosts", check=False)
    assert dead.status in (9, 12)


def test_dangerous_flags_of_the_backup_are_left_out(restorer: Restorer) -> None:
    """rsync_flags serves both: what deletes for a backup must not where we are."""
    flags = restorer.client.configuration / "rsync_flags"
    flags.write_text("--delete --delete-excluded --remove-source-files\n--inplace\n")
    kept = restorer.work / "target/home/data/names/mine"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    restorer.run("-r", "--to", "target", SOURCE)
    assert kept.read_text() == "mine"
    assert restorer.entries(SOURCE / "names/plain")


def test_a_cut_off_restore_continues(restorer: Restorer) -> None:
    """The part of a large file that has come is used by the next attempt."""
    large = SOURCE / "large"
    with large.open("wb") as file:
        for megabyte in (0, 30):  # with a hole between
            file.seek(megabyte << 20)
            file.write(os.urandom(12 << 20))
    restorer.backup()
    flags = restorer.client.configuration / "rsync_flags"
    flags.write_text("--bwlimit=2M\n")
    target = restorer.work / "current/home/data/large"
    partial = target.parent / ".byteback-partial/large"
    program = restorer.client.bin / "byteback-restore"
    running = subprocess.Popen([program, "-r", large], cwd=restorer.work)
    try:
        wait_until(lambda: any(size > 2 << 20 for size in sizes_in(target.parent)))
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 128 + signal.SIGTERM
    finally:
        running.kill()
        running.wait()
    assert not target.exists()
    wait_until(partial.exists)  # rsync's receiver puts it there when it ends
    assert partial.stat().st_size > 1 << 20
    flags.unlink()
    restorer.run("-r", large)
    assert target.read_bytes() == large.read_bytes()
    assert target.stat().st_blocks * 512 < 30 << 20
    assert not partial.parent.exists()


def sizes_in(directory: Path) -> list[int]:
    """Of the files in a directory, which is perhaps not there yet."""
    try:
        return [entry.stat().st_size for entry in os.scandir(directory)]
    except FileNotFoundError:
        return []


def test_a_disc_too_small_is_noticed_before_the_start(restorer: Restorer) -> None:
    """Nothing is written then; what is there already needs no room."""
    (SOURCE / "large").write_bytes(os.urandom(3 << 20))
    restorer.backup()
    small = restorer.work / "small"
    small.mkdir()
    run_program(["mount", "-t", "tmpfs", "-o", "size=2M", "tmpfs", small])
    try:
        refused = restorer.run("-r", "--to", small, SOURCE, check=False)
        assert refused.status == 1
        assert "only 2 MiB are free there" in refused.stderr
        assert list(small.iterdir()) == []
        # 8 MiB, all of it a hole but for a few bytes, and 100 kB.
        warned = restorer.run("-v", "-r", "--yes", "--to", small, f"{SOURCE}/kinds")
        assert "only 2 MiB are free there" in warned.stderr
        run_program(["mount", "-o", "remount,size=4M", small])
        restorer.run("-r", "--to", small, f"{SOURCE}/large")
        restorer.run("-r", "--to", small, f"{SOURCE}/{{large,names}}")
    finally:
        run_program(["umount", small])


def test_thousands_of_matches(restorer: Restorer) -> None:
    """More names than any command line holds."""
    many = SOURCE / "many"
    many.mkdir()
    for number in range(4000):
        (many / f"{'long name ' * 20}{number}").touch()
    restorer.backup()
    assert len(restorer.entries(f"{SOURCE}/many/*")) == 4000
    restorer.run("-r", f"{SOURCE}/many/*")
    assert len(list((restorer.work / "current/home/data/many").iterdir())) == 4000


def test_an_ordinary_user_restores_what_is_his_to_have(restorer: Restorer) -> None:
    """With a key of his own to read; owners stay his, and one line says so."""
    key = restorer.work / "key"
    shutil.copy(restorer.client.configuration / "key", key)
    os.chown(restorer.work, 65534, 65534)
    os.chown(key, 65534, 65534)
    key.chmod(0o600)
    for directory in restorer.work.parents:
        directory.chmod(directory.stat().st_mode | 0o011)
    outcome = run_program(
        [
            *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"),
            *(restorer.client.bin / "byteback-restore", "-v", "-r", "-k", key),
            *(f"{SOURCE}/names/*", f"{SOURCE}/metadata/old"),
        ],
        check=False,
        cwd=restorer.work,
        env={"HOME": "/nonexistent"},
    )
    assert outcome.status == 0, outcome.stderr
    assert "owners could not be restored" in outcome.stderr
    restored = restorer.work / "current/home/data/names/plain"
    assert restored.read_text() == "plain"
    assert restored.stat().st_uid == 65534


def on_terminal(restorer: Restorer, *words: str | Path, answer: str) -> Outcome:
    """Run byteback-restore on a terminal of its own, and type ``answer``."""
    program = restorer.client.bin / "byteback-restore"
    command = shlex.join([os.fspath(word) for word in (program, *words)])
    return run_program(
        [require_program("script"), "-qefc", command, "/dev/null"],
        check=False,
        stdin=answer,
        cwd=restorer.work,
    )


def test_in_place_asks_on_a_terminal(restorer: Restorer) -> None:
    """No means no, and yes is followed by progress on the same terminal."""
    plain = SOURCE / "names/plain"
    plain.write_text("changed")
    os.utime(plain, (1, 1))
    no = on_terminal(restorer, "-r", "--in-place", plain, answer="n\n")
    assert no.status == 1
    assert f"current: {plain}" in no.stdout
    assert f"replaces {plain}" in no.stdout
    assert plain.read_text() == "changed"
    yes = on_terminal(restorer, "-r", "--in-place", plain, answer="y\n")
    assert yes.status == 0, yes.stdout
    assert plain.read_text() == "plain"
    assert "100%" in yes.stdout
    assert "restored 1 file from current" in yes.stdout


def old_ssh(restorer: Restorer) -> list[str]:
    """ssh as the Ruby tool's client called it."""
    configuration = restorer.client.configuration
    options = [
        *("BatchMode=yes", "HostKeyAlias=127.0.0.1"),
        f"UserKnownHostsFile={configuration}/known_hosts",
    ]
    words = ["ssh", "-i", f"{configuration}/key", "-p", str(restorer.client.port)]
    return [*words, *(f"-o{option}" for option in options)]


def test_old_clients_can_list(restorer: Restorer) -> None:
    """A table on standard output, with the patterns quoted-printable."""
    target = f"{restorer.client.user.name}@127.0.0.1"
    patterns = f"{SOURCE}/names/with=20space {SOURCE}/kinds/link"
    request = f"byteback-receive --snapshot * --list --all  {patterns}"
    outcome = run_program([*old_ssh(restorer), target, request])
    header, dashes, link, space = outcome.stdout.splitlines()
    assert header.split() == list(HEADER)
    assert set(dashes) == {"-"}
    assert link.endswith(f"{SOURCE}/kinds/link -> file")
    assert space.endswith(f"{SOURCE}/names/with space")
    nothing = f"byteback-receive --snapshot * --list {SOURCE}/no=20such /\x1b[2J"
    outcome = run_program([*old_ssh(restorer), target, nothing])
    assert outcome.stdout.splitlines() == [
        "** Sorry.  There were no files matching:",
        f"--> {SOURCE}/no such",
        "--> /\\x1b[2J",
    ]


def test_old_clients_can_restore(restorer: Restorer) -> None:
    """The Ruby tool's requests still work, as far as rsync lets them."""
    target = f"{restorer.client.user.name}@127.0.0.1"
    run_program(
        [
            *("rsync", "--archive", "--numeric-ids", "--inplace", "--relative"),
            *("--compress", "--timeout", "300", "--trust-sender"),
            *("--rsh", shlex.join(old_ssh(restorer))),
            *("--rsync-path", "byteback-restore --fake-super --snapshot *"),
            *(f"{target}:{SOURCE}/names/with=20space", f":{SOURCE}/kinds/{{link,f*}}"),
            f"{restorer.work}/",
        ]
    )
    restored = restorer.work / "current/home/data"
    assert (restored / "names/with space").read_text() == "with space"
    assert (restored / "kinds/link").readlink() == Path("file")
    assert (restored / "kinds/file").stat().st_size == 100_000
