"""Programs that the wrong user calls, or that are called from nowhere."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import EnrolledClient
from tests.integration.programs import Outcome, run_program


def test_one_status_where_root_is_needed(enrolled_client: EnrolledClient) -> None:
    run_program(["useradd", "--create-home", "alice"])
    try:
        for line in (
            "byteback-backup",
            "byteback-setup-client",
            "byteback-setup-server",
            "byteback-prune --list",
            "byteback-prune --prune",
            "byteback-status",
            "byteback-clients list",
            f"byteback-snapshot --root {enrolled_client.host}",
            "byteback-restore /etc/hostname",
            "byteback-trial",
        ):
            refused = run_program(["su", "alice", "-c", line], check=False)
            assert refused.status == 2, (line, refused)
            assert "sudo" in refused.stderr
        # Where byteback was never set up, the same is asked for first.
        enrolled_client.configuration.rename("/etc/away")
        for line in ("byteback-backup", "byteback-setup-client"):
            refused = run_program(["su", "alice", "-c", line], check=False)
            assert refused.status == 2, (line, refused)
        Path("/etc/away").rename(enrolled_client.configuration)
    finally:
        run_program(["userdel", "--remove", "alice"])


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory for files to back up, and for restored ones."""
    with tempfile.TemporaryDirectory(prefix="source-", dir="/srv") as directory:
        yield Path(directory)


def test_a_removed_working_directory(
    enrolled_client: EnrolledClient, place: Path
) -> None:
    """Whatever names no relative path works as ever; the rest says why it cannot."""
    source = place / "what-to-back-up"
    source.write_text("contents")
    target = place / "restored"
    for line in (
        f"byteback-backup --source {source} --retry-number 0",
        f"byteback-restore {source}",
        f"byteback-restore --restore --to {target} {source}",
        "byteback-restore --verify",
        "byteback-prune --list",
        "byteback-prune --prune",
        "byteback-status",
        "byteback-clients list",
        "byteback-setup-client",
        "byteback-setup-server --no-schedule",
    ):
        outcome = run_from_nowhere(line)
        assert outcome.status == 0, (line, outcome)
    assert (target / source.relative_to("/")).read_text() == "contents"
    for line in (
        f"byteback-restore --restore {source}",
        f"byteback-restore --restore --to here {source}",
        "byteback-restore some/name",
        "byteback-setup-client --ssh-key key",
        "byteback-setup-server --image image --size 1G",
        "byteback-setup-server --directory here",
        "byteback-status --html here",
    ):
        outcome = run_from_nowhere(line)
        assert outcome.status in (1, 2), (line, outcome)
        assert "Traceback" not in outcome.stderr
        assert "directory" in outcome.stderr
        assert "\n  hint: " in outcome.stderr


def run_from_nowhere(line: str) -> Outcome:
    here = "/var/tmp/here"
    shell = f"mkdir {here} && cd {here} && rmdir {here} && exec {line}"
    return run_program(["sh", "-c", shell], check=False)
