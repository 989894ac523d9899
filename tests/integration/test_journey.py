"""The whole path of one client: set up, backed up, changed, found and restored."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from byteback.system.btrfs import commands
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
    assert commands.is_read_only(snapshot)
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


@pytest.fixture
def sealing(journey: Journey) -> Iterator[Callable[[], None]]:
    """Has root seal the snapshots, as its pruning does."""
    settings = journey.client.configuration / "server.toml"
    before = settings.read_text() if settings.exists() else ""
    settings.write_text(before + "sealed = true\n")

    def run() -> None:
        run_program([journey.client.bin / "byteback-prune", "--prune"])
        assert all(path.stat().st_uid == 0 for path in journey.snapshots())

    yield run
    settings.write_text(before)


def test_sealed_snapshots_serve_as_others_do(
    journey: Journey, sealing: Callable[[], None]
) -> None:
    expected = describe_tree(SOURCE)
    journey.back_up()
    [snapshot] = journey.snapshots()
    tops = journey.restore("--list", "--verbose", "/", SOURCE).stdout
    sealing()
    assert journey.restore("--list", "--verbose", "/", SOURCE).stdout == tops
    (SOURCE / "names" / "plain").write_text("changed")
    journey.back_up()
    words = ("--snapshot", snapshot.name, SOURCE)
    journey.restore("--restore", *words)
    restored = journey.scratch / snapshot.name / SOURCE.relative_to("/")
    assert differences(expected, describe_tree(restored)) == ""
    journey.restore("--restore", "--snapshot", snapshot.name, "--to", "whole", "/")
    whole = journey.scratch / "whole"
    assert differences(expected, describe_tree(whole / SOURCE.relative_to("/"))) == ""
    assert not [name for name in os.listxattr(whole) if "byteback" in name]
    # As a client of byteback 0.4 does.
    user, settings = journey.client.user, journey.client.configuration
    ssh = f"ssh -p {journey.client.port} -i {settings}/key -o HostKeyAlias=127.0.0.1"
    pull = f"byteback-restore --fake-super --snapshot {snapshot.name}"
    run_program(
        [
            *("rsync", "-aAXH", "--relative", "--numeric-ids", "--inplace"),
            *("--trust-sender", "-e"),
            f"{ssh} -o UserKnownHostsFile={settings}/known_hosts",
            *("--rsync-path", pull, f"{user.name}@127.0.0.1:{SOURCE}"),
            f"{journey.scratch}/old/",
        ]
    )
    restored = journey.scratch / "old" / snapshot.name / SOURCE.relative_to("/")
    assert differences(expected, describe_tree(restored)) == ""


def test_a_backup_after_sealed_snapshots_lost_their_current(
    journey: Journey, sealing: Callable[[], None]
) -> None:
    journey.back_up()
    sealing()
    run_program(["btrfs", "subvolume", "delete", journey.client.current])
    program = journey.client.bin / "byteback-backup"
    words = ("--source", SOURCE, "--retry-number", "0")
    busy = run_program([program, *words], check=False)
    assert busy.status == 75
    assert "is being made again" in busy.stderr
    sealing()
    # It begins as a copy of the snapshot, so that nothing is sent again.
    assert "Number of regular files transferred: 0\n" in journey.back_up().stderr
    expected = describe_tree(SOURCE)
    journey.restore("--restore", SOURCE)
    restored = journey.scratch / "current" / SOURCE.relative_to("/")
    assert differences(expected, describe_tree(restored)) == ""
