"""A machine remembers its own backups, and tells of them without a network."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from byteback.client.backup import last_run
from byteback.client.backup.last_run import Notes
from byteback.errors import IncompleteBackupError, UnreachableError
from byteback.system import mail

HOUR = 3600.0
NOW = 1_795_900_000.0
DAILY = tuple(NOW - (5 - n) * 24 * HOUR for n in range(5))  # the last one a day ago
FAILURE = UnreachableError("cannot reach 'vault'", hint="check the network")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "var" / "last-backup"


def test_a_good_backup_is_remembered_and_ends_what_failed(notes: Path) -> None:
    last_run.note_failure(FAILURE, notes)
    last_run.note_failure(FAILURE, notes)
    failing = last_run.read(notes)
    assert failing.good == ()
    assert failing.failing_since == pytest.approx(time.time(), abs=60)
    last_run.note_success("2026-11-28T02:30+0000", notes)
    good = last_run.read(notes)
    assert len(good.good) == 1
    assert (good.snapshot, good.failing_since, good.failure) == (
        *("2026-11-28T02:30+0000", None, None),
    )
    last_run.note_success(None, notes)
    assert last_run.read(notes).snapshot == "2026-11-28T02:30+0000"
    for _ in range(30):
        last_run.note_success(None, notes)
    assert len(last_run.read(notes).good) == 11
    assert notes.stat().st_mode & 0o777 == 0o600


def test_a_bug_or_an_interrupt_is_no_failure_of_the_backup(notes: Path) -> None:
    last_run.note_failure(KeyboardInterrupt(), notes)
    assert not notes.exists()


@pytest.mark.parametrize("content", ["", "[]", "null", '{"x": 1}', '{"good": ["a"]}'])
def test_damaged_notes_are_none(notes: Path, content: str) -> None:
    notes.parent.mkdir()
    notes.write_text(content)
    assert last_run.read(notes) == Notes()


def test_notes_that_cannot_be_written_stop_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    last_run.note_success(None, tmp_path / "file" / "notes")


@pytest.mark.parametrize(
    ("notes", "status"),
    [
        (Notes(), 2),
        (Notes(DAILY), 0),
        (Notes(tuple(time - 29 * HOUR for time in DAILY)), 0),
        (Notes(tuple(time - 31 * HOUR for time in DAILY)), 2),
        (Notes(DAILY, failing_since=NOW - HOUR, failure="x"), 1),
        (Notes(DAILY, is_incomplete=True), 1),
    ],
)
def test_the_check_goes_by_the_machines_own_habit(notes: Notes, status: int) -> None:
    line, told = last_run.check(notes, NOW)
    assert told == status
    assert line.startswith(f"BYTEBACK {('OK', 'WARNING', 'CRITICAL')[status]} - ")


def test_the_last_backup_in_words() -> None:
    lines = last_run.describe(
        Notes(DAILY, snapshot="x", failing_since=NOW - 3 * HOUR, failure="a\nb"), NOW
    )
    assert lines[0].endswith(", 24 hours ago")
    assert lines[1:] == ["newest snapshot: x", "failing for 3 hours:", "  a", "  b"]
    assert "no backup" in last_run.describe(Notes(), NOW)[0]


def test_mail_comes_when_failures_begin_and_once_a_week(
    notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport, box = tmp_path / "sendmail", tmp_path / "box"
    monkeypatch.setattr(mail, "SENDMAIL", transport)
    last_run.note_failure(FAILURE, notes)
    last_run.mail_failure(last_run.read(notes), NOW, notes)
    assert last_run.read(notes).told is None, "there was no transport yet"
    transport.write_text(f"#!/bin/sh\ncat >>{box}\n")
    transport.chmod(0o755)
    for hours, mails in ((0, 1), (24, 1), (167, 1), (169, 2), (170, 2)):
        last_run.mail_failure(last_run.read(notes), NOW + hours * HOUR, notes)
        assert box.read_text().count("Subject: ") == mails
    assert "cannot reach 'vault'" in box.read_text()
    assert "hint: check the network" in box.read_text()
    last_run.note_success(None, notes)
    last_run.note_failure(FAILURE, notes)
    last_run.mail_failure(last_run.read(notes), NOW + 171 * HOUR, notes)
    assert box.read_text().count("Subject: ") == 3


def test_backups_that_lack_files_are_mailed_once_a_week(notes: Path) -> None:
    incomplete = IncompleteBackupError("3 files could not be read")
    last_run.note_failure(incomplete, notes)
    found = last_run.failure_mail(last_run.read(notes), "web", NOW)
    assert found is not None
    assert found[0] == "byteback on web: the backup lacks files"
    last_run.note_told(last_run.read(notes), NOW, notes)
    last_run.note_failure(incomplete, notes)
    assert last_run.failure_mail(last_run.read(notes), "web", NOW + 24 * HOUR) is None


def test_a_killed_run_is_told_without_words() -> None:
    found = last_run.failure_mail(replace(Notes(DAILY)), "web", NOW)
    assert found is not None
    assert "the last run did not come to its end" in found[1]
