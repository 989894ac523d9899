"""Hooks of a backup: their order, their failures, and what they are told."""

from __future__ import annotations

from pathlib import Path

from tests.integration.backup.runs import add_hook, backup, snapshots
from tests.integration.conftest import EnrolledClient


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
