"""How byteback-backup ends when something is wrong."""

from __future__ import annotations

import contextlib
import fcntl
import signal
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.backup.runs import add_hook, backup, copy_of, snapshots
from tests.integration.conftest import EnrolledClient, unmount
from tests.integration.programs import run_program
from tests.waiting import PATIENCE_S, wait_until

MARK = b"the contents that the disc will lose. "


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
    # Gone between the listing and their turn: rsync opens one file after the other.
    for number in range(300):
        (source / f"z{number:03}").write_bytes(b"x" * 500)
    program = str(enrolled_client.bin / "byteback-backup")
    argv = [program, "--source", str(source), "--verbose"]
    output = subprocess.PIPE
    with leased(source / "z100") as is_wanted:
        running = subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT)
        wait_until(lambda: is_wanted() or running.poll() is not None)
        for number in range(200, 300):
            (source / f"z{number}").unlink()
    said = running.communicate(timeout=PATIENCE_S)[0]
    assert running.returncode == 0, said
    assert b"has vanished" in said
    assert len(snapshots(enrolled_client)) == 1
    assert copy_of(enrolled_client, source / "z100").exists()
    assert not copy_of(enrolled_client, source / "z200").exists()


@contextlib.contextmanager
def leased(path: Path) -> Iterator[Callable[[], bool]]:
    """Keep others from opening a file; the call tells if one wants to, and waits.

    For 45 seconds after that, as /proc/sys/fs/lease-break-time says (fcntl(2)).
    """
    with path.open("r+b") as file:
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)  # one that does nothing
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield lambda: fcntl.fcntl(file, fcntl.F_GETLEASE) != fcntl.F_WRLCK


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
