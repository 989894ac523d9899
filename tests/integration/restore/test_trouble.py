"""Restores that fail, are cut off, or have too little room."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.integration.conftest import unmount
from tests.integration.programs import run_program
from tests.integration.restore.restorer import SOURCE, Restorer
from tests.waiting import PATIENCE_S, wait_until


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
    flags.write_text("--bwlimit=512K\n")  # most of a minute for all of it
    target = restorer.work / "current/home/data/large"
    partial = target.parent / ".byteback-partial/large"
    program = restorer.client.bin / "byteback-restore"
    running = subprocess.Popen([program, "-r", large], cwd=restorer.work)
    try:
        wait_until(lambda: any(size > 1 << 20 for size in sizes_in(target.parent)))
        running.send_signal(signal.SIGTERM)
        assert running.wait(PATIENCE_S) == 128 + signal.SIGTERM
    finally:
        running.kill()
        running.wait()
    assert not target.exists()
    wait_until(partial.exists)  # rsync's receiver puts it there when it ends
    assert partial.stat().st_size > 1 << 19
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
        unmount(small)
