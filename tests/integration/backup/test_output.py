"""What cron hears of byteback-backup, and what a person at a terminal sees."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from pathlib import Path

from tests.integration.backup.runs import (
    backup,
    copy_of,
    make_due,
    on_terminal,
    snapshots,
)
from tests.integration.conftest import CHECKOUT, EnrolledClient
from tests.integration.programs import run_program


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
    for word in ("starting", "ssh: ", " -o", "--server", "Total ", "speedup"):
        assert word not in shown


def as_in_the_trial(said: str) -> str:
    """The lines that byteback-trial leaves of a program's --verbose output."""
    trial = (CHECKOUT / "bin/byteback-trial").read_text()
    scripts = re.findall(r"^ +(?:sed )?-e '([^']*)'", trial, re.MULTILINE)
    assert scripts
    return run_program(["sed", "; ".join(scripts)], stdin=said).stdout


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
