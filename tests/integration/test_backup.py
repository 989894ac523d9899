"""byteback-backup as cron and people run it, on a server that is this machine too."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from byteback.server.store.layout import Store
from byteback.server.transfer.change_log import Changes
from byteback.server.transfer.hard_links import separate
from tests.integration.conftest import MOUNT_OPTIONS, EnrolledClient, unmount
from tests.integration.programs import SEARCH_PATH, Outcome, run_program
from tests.waiting import PATIENCE_S

MARK = b"the contents that the disc will lose. "


@pytest.fixture
def source() -> Iterator[Path]:
    """A small tree to back up; not below /tmp, which is left out by itself."""
    with tempfile.TemporaryDirectory(prefix="source-", dir="/srv") as directory:
        source = Path(directory)
        (source / "etc").mkdir()
        (source / "etc/hosts").write_text("127.0.0.1 localhost\n")
        (source / "home").mkdir()
        (source / "home/a b").write_text("spaces")
        yield source


def backup(client: EnrolledClient, *words: str | Path, expect: int = 0) -> Outcome:
    """Run byteback-backup without a terminal and check its status."""
    argv = [client.bin / "byteback-backup", "--retry-delay", "0", *words]
    outcome = run_program(argv, check=False)
    assert outcome.status == expect, outcome
    return outcome


def copy_of(client: EnrolledClient, path: Path, tree: str = "current") -> Path:
    return client.store / client.host / tree / path.relative_to("/")


def snapshots(client: EnrolledClient) -> list[str]:
    names = sorted(path.name for path in (client.store / client.host).iterdir())
    return [name for name in names if name != "current"]


def make_due(client: EnrolledClient) -> None:
    """Date the snapshots into the past, so that the next one is due."""
    for number, name in enumerate(snapshots(client)):
        if not name.startswith("2001"):
            host = client.store / client.host
            (host / name).rename(host / f"2001-01-{number + 1:02}T00:00+0000")


def add_hook(client: EnrolledClient, directory: str, name: str, script: str) -> None:
    path = client.configuration / directory / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


# --- Cron ------------------------------------------------------------------------


def test_cron_hears_nothing_of_a_success(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    outcome = backup(enrolled_client, "--source", source)
    assert (outcome.stdout, outcome.stderr) == ("", "")
    assert len(snapshots(enrolled_client)) == 1
    # Too soon for another snapshot, and yet the backup is done.
    (source / "new").write_text("new")
    outcome = backup(enrolled_client, "--source", source)
    assert (outcome.stdout, outcome.stderr) == ("", "")
    assert len(snapshots(enrolled_client)) == 1
    assert copy_of(enrolled_client, source / "new").read_text() == "new"


def test_cron_hears_one_message_of_a_failure(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    destination = "ssh://byteback@127.0.0.1:1/"
    words = ["--destination", destination, "--retry-number", "2"]
    outcome = backup(enrolled_client, "--source", source, *words, expect=12)
    assert outcome.stdout == ""
    first, *rest = outcome.stderr.splitlines()
    assert first == (
        "byteback-backup: error: cannot reach 'ssh://byteback@127.0.0.1:1/' "
        "(after 3 attempts)"
    )
    assert rest[0].startswith("  hint: ")
    assert rest[1:] == ["  ssh: connect to host 127.0.0.1 port 1: Connection refused"]


def test_verbose_tells_what_is_run(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    outcome = backup(enrolled_client, "--source", source, "--verbose")
    assert outcome.stdout == ""
    assert "starting rsync --archive" in outcome.stderr
    assert "backup complete: 2 of " in outcome.stderr
    assert f"; snapshot {snapshots(enrolled_client)[0]}" in outcome.stderr
    shown = as_in_the_trial(outcome.stderr)
    assert "backup complete: 2 of " in shown
    assert re.search(r"^rsync: \S+ <f\S+ \S*/etc/hosts$", shown, re.MULTILINE)
    for word in ("starting", "ssh: ", " -o", "--server", "Total ", "speedup"):
        assert word not in shown


def as_in_the_trial(said: str) -> str:
    """The lines that byteback-trial leaves of a program's --verbose output."""
    trial = (Path(__file__).parents[2] / "bin/byteback-trial").read_text()
    (script,) = re.findall(r"^        sed '(.*)' \\$", trial, re.MULTILINE)
    return run_program(["sed", script], stdin=said).stdout


def on_terminal(
    client: EnrolledClient, *words: str | Path, typed: bytes = b""
) -> tuple[int, bytes]:
    """Run byteback-backup at a terminal: its status, and what the terminal shows.

    With ``typed`` its standard input is the terminal, too.
    """
    ours, theirs = pty.openpty()
    argv = [client.bin / "byteback-backup", "--retry-delay", "0", *words]
    environment = {"PATH": SEARCH_PATH, "TERM": "xterm", "COLUMNS": "80"}
    stdin = theirs if typed else subprocess.DEVNULL
    running = subprocess.Popen(
        argv, stdin=stdin, stdout=theirs, stderr=theirs, env=environment
    )
    os.write(ours, typed)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal's end of file looks
        while chunk := os.read(ours, 65536):
            shown += chunk
    os.close(ours)
    return running.wait(PATIENCE_S), shown


def test_a_terminal_shows_progress_and_a_summary(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    (source / "large").write_bytes(os.urandom(3_000_000))
    status, shown = on_terminal(enrolled_client, "--source", source)
    assert status == 0
    assert b"100%" in shown
    assert b"backup complete: 3 of" in shown
    # The bar is gone before anything else is written.
    assert b"\r\x1b[Kbackup complete" in shown
    assert b"left\x1b[Kbackup" not in shown


# --- Statuses --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--no-such-option"], 2, "No such option"),
        (["--retry-number", "-1"], 2, "--retry-number"),
        (["--io-timeout", "soon"], 2, "--io-timeout"),
        (["--source", "/no/such/place"], 2, "cannot back up '/no/such/place'"),
        (["--destination", "-oProxyCommand=x"], 2, "is no destination"),
        (["--ssh-key", "/no/such/key"], 10, "'/no/such/key' is missing"),
        (["--rsync", "stray"], 2, "No such option"),
        (["--dry-run", "stray"], 2, "unexpected extra argument"),
    ],
)
def test_wrong_words(
    enrolled_client: EnrolledClient, words: list[str], status: int, message: str
) -> None:
    outcome = backup(enrolled_client, *words, expect=status)
    assert message in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert snapshots(enrolled_client) == []


def test_only_root_can_back_up(enrolled_client: EnrolledClient) -> None:
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    argv.append(str(enrolled_client.bin / "byteback-backup"))
    outcome = run_program(argv, check=False)
    assert outcome.status == 2
    assert "sudo" in outcome.stderr


@pytest.fixture
def failing_disc(source: Path) -> Iterator[Path]:
    """A directory in ``source`` with a file that its disc cannot read any more.

    Root is refused nothing: so the disc must fail. Its file system keeps checksums,
    and its contents are changed behind its back.
    """
    point = source / "disc"
    point.mkdir()
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as image:
        image.truncate(128 << 20)
        single = ["--data", "single"]
        run_program(["mkfs.btrfs", "--quiet", *single, image.name])
        run_program(["mount", "-o", "loop", image.name, point])
        try:
            (point / "good").write_text("good")
            (point / "bad").write_bytes(MARK * 5000)
        finally:
            run_program(["umount", point])
        data = Path(image.name).read_bytes()
        Path(image.name).write_bytes(data.replace(MARK, MARK.swapcase()))
        run_program(["mount", "-o", "loop,ro", image.name, point])
        try:
            yield point
        finally:
            unmount(point)


def test_files_that_cannot_be_read(
    enrolled_client: EnrolledClient, source: Path, failing_disc: Path
) -> None:
    told = source.parent / f"{source.name}-told"
    add_hook(enrolled_client, "finally-backup.d", "a", f"env >{told}")
    add_hook(enrolled_client, "post-backup.d", "a", f"touch {told}-post")
    outcome = backup(enrolled_client, "--source", source, expect=3)
    first, second, *rest = outcome.stderr.splitlines()
    assert first == (
        "byteback-backup: warning: the backup is done, but one file could not be read"
    )
    assert second.startswith("  hint: ")
    assert any(f'"{failing_disc}/bad"' in line for line in rest)
    assert any("Input/output error" in line for line in rest)
    # All the rest is there, in a snapshot that is known to lack something.
    (name,) = snapshots(enrolled_client)
    assert copy_of(enrolled_client, failing_disc / "good", name).read_text() == "good"
    assert copy_of(enrolled_client, source / "etc/hosts", name).exists()
    ledger = enrolled_client.store / ".byteback/ledger.sqlite"
    with contextlib.closing(sqlite3.connect(ledger)) as database:
        rows = database.execute("SELECT name, incomplete FROM snapshot").fetchall()
    assert rows == [(name, 1)]
    restore = enrolled_client.bin / "byteback-restore"
    shown = run_program([restore, "--list", "--snapshot", name, f"{source}/etc/*"])
    assert f"when {name} was made, some files could not be read" in shown.stderr
    words = told.read_text().splitlines()
    assert "BYTEBACK_RESULT=incomplete" in words
    assert "BYTEBACK_EXIT_STATUS=3" in words
    assert f"BYTEBACK_SNAPSHOT={name}" in words
    assert not Path(f"{told}-post").exists(), "a heartbeat of a backup that lacks files"
    told.unlink()


def test_files_that_vanish_are_no_failure(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    # Gone between the listing and their turn.
    for number in range(3000):
        (source / f"z{number:04}").write_bytes(b"x" * 500)
    program = str(enrolled_client.bin / "byteback-backup")
    argv = [program, "--source", str(source), "--verbose"]
    running = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while not copy_of(enrolled_client, source / "z0001").exists():
        assert running.poll() is None
    for number in range(2900, 3000):
        (source / f"z{number:04}").unlink()
    output = running.communicate(timeout=60)[0]
    assert running.returncode == 0, output
    assert b"has vanished" in output
    assert len(snapshots(enrolled_client)) == 1


def test_what_a_servers_rsync_refuses_is_told_once(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    (enrolled_client.configuration / "rsync_flags").write_text("-M--delete-after\n")
    words = ["--retry-delay", "600"]  # it would not end in time
    outcome = backup(enrolled_client, "--source", source, *words, expect=9)
    assert "the server's rsync refused the transfer (rsync status 1)" in outcome.stderr
    assert "may not combine multiple --delete-WHEN options" in outcome.stderr
    assert snapshots(enrolled_client) == []


def test_flags_that_repeat_our_own(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    """As the manual of 0.4 recommended them."""
    flags = enrolled_client.configuration / "rsync_flags"
    flags.write_text("--xattrs\n--acls --hard-links\n-aX\n")
    backup(enrolled_client, "--source", source)
    assert copy_of(enrolled_client, source / "etc/hosts").exists()
    # And a client that does not know: rsync refuses -XX beside --fake-super.
    key = enrolled_client.configuration / "key"
    ssh = f"ssh -i {key} -p {enrolled_client.port} -l byteback"
    ssh += f" -o UserKnownHostsFile={enrolled_client.configuration}/known_hosts"
    old = (
        "rsync -aAXX -HH --numeric-ids --delete-excluded --delete --inplace --relative"
    )
    (source / "new").write_text("new")
    run_program(
        [
            *old.split(),
            *("-e", ssh, "--rsync-path", "rsync --fake-super", source, "127.0.0.1:"),
        ]
    )
    assert copy_of(enrolled_client, source / "new").read_text() == "new"


# --- Hooks -----------------------------------------------------------------------


def test_hooks_run_in_their_order_and_are_told_what_became_of_it(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    told = source.parent / f"{source.name}-told"
    for directory in ("pre-backup.d", "post-backup.d", "finally-backup.d"):
        for name in ("20-b", "10-a"):
            script = f"echo {directory} {name} $BYTEBACK_RESULT >>{told}"
            add_hook(enrolled_client, directory, name, f"echo loud; {script}")
    outcome = backup(enrolled_client, "--source", source)
    assert (outcome.stdout, outcome.stderr) == ("", "")
    lines = [line.strip() for line in told.read_text().splitlines()]
    assert lines == [
        *("pre-backup.d 10-a", "pre-backup.d 20-b"),
        *("post-backup.d 10-a success", "post-backup.d 20-b success"),
        *("finally-backup.d 10-a success", "finally-backup.d 20-b success"),
    ]
    told.unlink()


def test_a_failing_pre_hook_stops_the_backup_before_anything_is_sent(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    told = source.parent / f"{source.name}-told"
    add_hook(enrolled_client, "pre-backup.d", "dump", "echo no database; exit 7")
    add_hook(enrolled_client, "post-backup.d", "a", f"echo post >>{told}")
    script = f"echo finally $BYTEBACK_RESULT $BYTEBACK_EXIT_STATUS >>{told}"
    add_hook(enrolled_client, "finally-backup.d", "a", script)
    outcome = backup(enrolled_client, "--source", source, expect=13)
    assert outcome.stderr.splitlines() == [
        (
            "byteback-backup: error: hook '/etc/byteback/pre-backup.d/dump' "
            "failed with status 7"
        ),
        "  hint: mend it, or take it out of /etc/byteback/pre-backup.d",
        "  no database",
    ]
    assert told.read_text() == "finally failure 13\n"
    assert list(enrolled_client.current.iterdir()) == []
    assert snapshots(enrolled_client) == []
    told.unlink()


def test_finally_hooks_hear_of_a_backup_that_could_not_begin(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    told = source.parent / f"{source.name}-told"
    script = f"echo $BYTEBACK_RESULT $BYTEBACK_EXIT_STATUS $BYTEBACK_MESSAGE >>{told}"
    add_hook(enrolled_client, "finally-backup.d", "a", script)
    (enrolled_client.configuration / "key").unlink()
    backup(enrolled_client, expect=10)
    assert told.read_text().startswith("failure 10 this machine has no key")
    told.unlink()


def test_a_failing_hook_at_the_end_is_a_failure_of_its_own(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    add_hook(enrolled_client, "post-backup.d", "heartbeat", "exit 1")
    outcome = backup(enrolled_client, "--source", source, expect=13)
    assert "heartbeat' failed with status 1" in outcome.stderr
    assert len(snapshots(enrolled_client)) == 1


# --- What is sent ----------------------------------------------------------------


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


# --- The server's clock ----------------------------------------------------------


def test_a_clock_that_was_a_year_ahead_keeps_no_snapshot_away(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    backup(enrolled_client, "--source", source)
    host = enrolled_client.store / enrolled_client.host
    (name,) = snapshots(enrolled_client)
    ahead = f"{int(name[:4]) + 1}{name[4:]}"
    (host / name).rename(host / ahead)
    (source / "new").write_text("new")
    outcome = backup(enrolled_client, "--source", source, "--verbose")
    made = [name for name in snapshots(enrolled_client) if name != ahead]
    assert len(made) == 1
    assert f"snapshot {made[0]}" in outcome.stderr
    # The next one is not due, and which one is the newest is told rightly.
    outcome = backup(enrolled_client, "--source", source, "--verbose")
    assert f"no new snapshot was due (newest: {made[0]})" in outcome.stderr
    # current is lost: it begins anew as the newest copy, not as the misdated one.
    run_program(["btrfs", "subvolume", "delete", host / "current"])
    (enrolled_client.store / f".byteback/hosts/{enrolled_client.host}.state").unlink()
    backup(enrolled_client, "--source", source)
    assert copy_of(enrolled_client, source / "new").exists()


def test_a_narrower_backup_is_announced_and_its_snapshots_are_marked(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    wide = backup(enrolled_client, "--source", source)
    assert "covers less" not in wide.stderr
    make_due(enrolled_client)
    ledger = enrolled_client.store / ".byteback/ledger.sqlite"
    with contextlib.closing(sqlite3.connect(ledger)) as database:
        database.execute("UPDATE snapshot SET name = '2001-01-01T00:00+0000'")
        database.commit()
    narrow = source / "etc"
    told = backup(enrolled_client, "--source", narrow)
    assert "this backup covers less than the last one" in told.stderr
    assert f"'{source}', all but '{narrow}' goes" in told.stderr
    assert not copy_of(enrolled_client, source / "home").exists()
    again = backup(enrolled_client, "--source", narrow)
    assert "covers less" not in again.stderr, "told once"
    listing = run_program(
        [enrolled_client.bin / "byteback-restore", "--all", narrow / "hosts"]
    )
    newest = snapshots(enrolled_client)[-1]
    assert f"current holds '{narrow}' only" in listing.stderr
    shown = run_program([enrolled_client.bin / "byteback-prune", "--list"]).stdout
    lines = {line.split()[0].split("/")[1]: line for line in shown.splitlines()}
    assert f"of '{narrow}' only" in lines[newest]


def test_a_person_is_asked_before_a_narrower_backup(
    enrolled_client: EnrolledClient, source: Path
) -> None:
    backup(enrolled_client, "--source", source)
    narrow = ("--source", source / "etc")
    status, shown = on_terminal(enrolled_client, *narrow, typed=b"n\n")
    assert (status, b"Go on? [y/N]" in shown) == (1, True), shown
    assert b"nothing was backed up" in shown
    assert copy_of(enrolled_client, source / "home").exists()
    status, shown = on_terminal(enrolled_client, *narrow, typed=b"y\n")
    assert (status, b"Go on? [y/N]" in shown) == (0, True), shown
    assert not copy_of(enrolled_client, source / "home").exists()
    backup(enrolled_client, "--source", source)
    status, shown = on_terminal(enrolled_client, *narrow, "--yes", typed=b"n\n")
    assert (status, b"Go on?" in shown) == (0, False), shown
    assert not copy_of(enrolled_client, source / "home").exists()
