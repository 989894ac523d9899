"""A copy of a client, with its key and another machine-id, is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import EnrolledClient
from tests.integration.programs import Outcome, run_program

MACHINE_ID = Path("/etc/machine-id")
ONE, OTHER = "1" * 31 + "a", "2" * 31 + "b"


@pytest.fixture(autouse=True)
def machine_id() -> Iterator[None]:
    """This machine's own id is back in its place afterwards."""
    before = MACHINE_ID.read_bytes() if MACHINE_ID.exists() else None
    MACHINE_ID.write_text(f"{ONE}\n")
    yield
    if before is None:
        MACHINE_ID.unlink(missing_ok=True)
    else:
        MACHINE_ID.write_bytes(before)


def run(client: EnrolledClient, name: str, *words: str | Path) -> Outcome:
    return run_program([client.bin / name, *words], check=False)


def test_a_copy_of_a_machine(enrolled_client: EnrolledClient) -> None:
    source = Path("/srv/machines")
    source.mkdir(exist_ok=True)
    words = ("--source", source)
    (source / "whose").write_text("one")
    run_program([enrolled_client.bin / "byteback-setup-client"])
    assert run(enrolled_client, "byteback-backup", *words).status == 0
    copy = enrolled_client.current / "srv/machines/whose"

    MACHINE_ID.write_text(f"{OTHER}\n")
    (source / "whose").write_text("other")
    for more in ((), ("--dry-run",)):
        refused = run(enrolled_client, "byteback-backup", *words, *more)
        assert refused.status == 9
        first, hint, *rest = refused.stderr.splitlines()
        assert "key was last used by another machine" in first
        assert "byteback-setup-client --hostname NAME" in hint
        assert not rest
    assert copy.read_text() == "one"
    shown = run(enrolled_client, "byteback-status", "--json")
    kinds = {alarm["kind"] for alarm in json.loads(shown.stdout)["alarms"]}
    assert "two-machines" in kinds
    # It may read: that is how a machine is restored on another one.
    listed = run(enrolled_client, "byteback-restore", f"{source}/whose")
    assert listed.status == 0

    done = run_program([enrolled_client.bin / "byteback-setup-client"])
    assert "The server knew another machine by this key" in done.stdout
    assert run(enrolled_client, "byteback-backup", *words).status == 0
    assert copy.read_text() == "other"
    MACHINE_ID.write_text(f"{ONE}\n")
    assert run(enrolled_client, "byteback-backup", *words).status == 9


def test_a_machine_without_an_id_is_not_compared(
    enrolled_client: EnrolledClient,
) -> None:
    source = Path("/srv/machines")
    source.mkdir(exist_ok=True)
    for text in (f"{ONE}\n", "", "uninitialized\n"):
        MACHINE_ID.write_text(text)
        done = run(enrolled_client, "byteback-backup", "--source", source)
        assert done.status == 0, done


def test_an_id_of_one_start_only_is_not_compared(
    enrolled_client: EnrolledClient, tmp_path: Path
) -> None:
    """As systemd mounts one where /etc cannot be written to."""
    source = Path("/srv/machines")
    source.mkdir(exist_ok=True)
    for number in ("1", "2"):
        (tmp_path / "id").write_text(f"{number * 31}c\n")
        run_program(["mount", "--bind", tmp_path / "id", MACHINE_ID])
        try:
            done = run(enrolled_client, "byteback-backup", "--source", source)
        finally:
            run_program(["umount", MACHINE_ID])
        assert done.status == 0, done
