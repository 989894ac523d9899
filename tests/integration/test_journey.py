"""The whole path of one client: set up, backed up, changed, found and restored."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from byteback.tools import btrfs
from tests.integration.conftest import EnrolledClient
from tests.integration.programs import Outcome, run_program
from tests.integration.source_tree import describe_tree, differences, make_source_tree

SOURCE = Path("/home/journey")


@dataclass(frozen=True)
class Journey:
    """A client with a source tree, and a place to restore to."""

    client: EnrolledClient
    scratch: Path

    def back_up(self) -> Outcome:
        """Back up the source tree."""
        program = self.client.bin / "byteback-backup"
        return run_program([program, "--source", SOURCE, "--verbose"])

    def restore(self, *words: str | Path) -> Outcome:
        """Run byteback-restore in the scratch directory."""
        program = self.client.bin / "byteback-restore"
        return run_program([program, *words], cwd=self.scratch)

    def snapshots(self) -> list[Path]:
        """The client's snapshots on the server, oldest first."""
        return sorted(self.client.current.parent.glob("20*"))


@pytest.fixture
def journey(enrolled_client: EnrolledClient, tmp_path: Path) -> Iterator[Journey]:
    """A client whose source tree holds one of everything."""
    make_source_tree(SOURCE)
    try:
        yield Journey(enrolled_client, tmp_path)
    finally:
        shutil.rmtree(SOURCE)


def test_everything_comes_back_as_it_was(journey: Journey) -> None:
    expected = describe_tree(SOURCE)
    journey.back_up()
    assert differences(expected, describe_tree(SOURCE)) == ""
    journey.restore("--restore", SOURCE)
    restored = journey.scratch / "current" / SOURCE.relative_to("/")
    assert differences(expected, describe_tree(restored)) == ""


def test_snapshot_keeps_what_changes_later(journey: Journey) -> None:
    expected = describe_tree(SOURCE)
    journey.back_up()
    (SOURCE / "kinds" / "large").write_bytes(b"other")
    shutil.rmtree(SOURCE / "names")
    journey.back_up()
    [snapshot] = journey.snapshots()
    assert btrfs.is_read_only(snapshot)
    journey.restore("--restore", "--snapshot", snapshot.name, SOURCE)
    restored = journey.scratch / snapshot.name / SOURCE.relative_to("/")
    assert differences(expected, describe_tree(restored)) == ""
    journey.restore("--restore", SOURCE / "kinds" / "large")
    newest = journey.scratch / "current" / SOURCE.relative_to("/") / "kinds" / "large"
    assert newest.read_bytes() == b"other"


def test_second_backup_sends_only_what_changed(journey: Journey) -> None:
    journey.back_up()
    (SOURCE / "names" / "plain").write_text("changed")
    assert "Number of regular files transferred: 1\n" in journey.back_up().stderr


def test_versions_are_listed(journey: Journey) -> None:
    journey.back_up()
    changed = SOURCE / "names" / "plain"
    changed.write_text("changed")
    journey.back_up()
    lines = journey.restore("--list", "--all", changed).stdout.splitlines()
    assert len([line for line in lines if line.endswith(str(changed))]) == 2


def test_no_match_is_said_and_is_a_failure(journey: Journey) -> None:
    journey.back_up()
    program = journey.client.bin / "byteback-restore"
    outcome = run_program([program, "--list", "/no/such/file"], check=False)
    assert outcome.status == 1
    assert "/no/such/file" in outcome.stderr
