"""Comparisons of a machine with its backup, through a real server."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from byteback.client.backup.selections import STATE
from tests.integration.conftest import EnrolledClient
from tests.integration.programs import Outcome, run_program

SOURCE = Path("/home/data")
FIRST, SECOND = "2026-01-01T00:00+0000", "2026-01-02T00:00+0000"
ODD = "new\nline \udcff -> x\\y"


@dataclass(frozen=True)
class Client:
    """An enrolled client, with SOURCE backed up and one snapshot of it."""

    enrolled: EnrolledClient

    def restore(self, *words: str | Path, check: bool = True) -> Outcome:
        program = self.enrolled.bin / "byteback-restore"
        return run_program([program, *words], check=check, cwd=SOURCE)

    def backup(self, snapshot: str) -> None:
        """Back SOURCE up, with a snapshot named by the test."""
        program = self.enrolled.bin / "byteback-backup"
        run_program([program, "--source", SOURCE])
        current = self.enrolled.current
        run_program(
            [
                *("runuser", "-u", self.enrolled.user.name, "--", "btrfs"),
                *("subvolume", "snapshot", "-r", current, current.parent / snapshot),
            ]
        )


@pytest.fixture
def client(enrolled_client: EnrolledClient) -> Iterator[Client]:
    shutil.rmtree(SOURCE, ignore_errors=True)
    (SOURCE / "sub/.hidden").mkdir(parents=True)
    (SOURCE / "going").mkdir()
    newer = ("kind is newer", "time is newer")
    for name in ("same", "rewritten", "sub/.hidden/owner", "going/file", ODD, *newer):
        (SOURCE / name).write_text(name, errors="surrogateescape")
    (SOURCE / "link").symlink_to("same")
    STATE.unlink(missing_ok=True)
    made = Client(enrolled_client)
    made.backup(FIRST)
    notes = STATE.read_text()
    # The snapshot that was really made is a later one than the test's.
    STATE.write_text(re.sub(r'"since": "[^"]*"', f'"since": "{FIRST}"', notes))
    try:
        yield made
    finally:
        shutil.rmtree(SOURCE, ignore_errors=True)


def change() -> None:
    """Make, delete and change files, and one file's owner."""
    (SOURCE / "rewritten").write_text("something else")
    os.chown(SOURCE / "sub/.hidden/owner", 1234, 5678)
    shutil.rmtree(SOURCE / "going")
    (SOURCE / ODD).unlink()
    (SOURCE / "link").unlink()
    (SOURCE / "link").symlink_to("rewritten")
    (SOURCE / "fresh").mkdir()
    (SOURCE / "fresh/file").touch()
    (SOURCE / "kind is newer").unlink()
    (SOURCE / "kind is newer").symlink_to("same")
    os.utime(SOURCE / "time is newer", (1, 1))


CHANGES = {
    (f"{SOURCE}/rewritten", "changed"),
    (f"{SOURCE}/sub/.hidden/owner", "changed"),
    (f"{SOURCE}/going", "deleted"),
    (f"{SOURCE}/going/file", "deleted"),
    (f"{SOURCE}/{ODD}", "deleted"),
    (f"{SOURCE}/link", "changed"),
    (f"{SOURCE}/fresh", "new"),
    (f"{SOURCE}/fresh/file", "new"),
    (f"{SOURCE}/kind is newer", "changed"),
    (f"{SOURCE}/time is newer", "changed"),
}


def states() -> dict[Path, tuple[int, int]]:
    """The state that a look must not change."""
    found = {path: path.lstat() for path in SOURCE.rglob("*")}
    return {path: (status.st_ino, status.st_ctime_ns) for path, status in found.items()}


def differences(outcome: Outcome) -> set[tuple[str, str]]:
    lines = [json.loads(line) for line in outcome.stdout.splitlines()]
    return {(line["path"], line["change"]) for line in lines}


def test_differences_to_now_and_between_snapshots(client: Client) -> None:
    """The same, whichever side the later state is on; in nothing but what was asked."""
    change()
    before = states()
    live = client.restore("--diff", "--json", FIRST, SOURCE)
    assert differences(live) == CHANGES
    assert states() == before
    client.backup(SECOND)
    stored = client.restore("--diff", "--json", FIRST, SECOND)
    assert differences(stored) == CHANGES
    assert differences(client.restore("--diff", "--json", SECOND, ".")) == set()
    text = client.restore("--diff", FIRST, "2026-01-02*", "sub", "fresh/f*").stdout
    assert text.splitlines() == [
        f"new      {SOURCE}/fresh/file",
        f"changed  {SOURCE}/sub/.hidden/owner",
    ]
    backwards = client.restore("--diff", "--json", SECOND, FIRST)
    kinds = {"new": "deleted", "deleted": "new", "changed": "changed"}
    assert differences(backwards) == {(path, kinds[kind]) for path, kind in CHANGES}
    for words in (["--diff"], ["--diff", "../x"], ["--diff", "now"], ["--verify", "/"]):
        assert client.restore(*words, check=False).status == 2
    assert client.restore("--diff", "--verify", check=False).status == 2
    option = client.restore("--diff", "--snapshot", FIRST, SOURCE, check=False)
    assert (option.status, FIRST in option.stderr) == (2, True)
    nothing = client.restore("--diff", FIRST, "/no/such", check=False)
    assert nothing.status == 1
    assert "--snapshot" not in nothing.stderr
    unknown = client.restore("--diff", "2001-01-01T00:00+0000", "current", check=False)
    assert unknown.status == 9


@pytest.fixture
def outside() -> Iterator[Path]:
    """A directory of the machine that no backup has."""
    directory = Path("/home/outside")
    (directory / "full/of").mkdir(parents=True)
    for number in range(20):
        (directory / "full/of" / f"file{number}").touch()
    yield directory
    shutil.rmtree(directory)


def test_now_does_not_mean_what_was_left_out(client: Client, outside: Path) -> None:
    """Neither outside of the sources nor excluded; and new sources are no news."""
    excluded = SOURCE / "excluded"
    excluded.mkdir()
    (excluded / "file").touch()
    program = client.enrolled.bin / "byteback-backup"
    run_program([program, "--source", SOURCE, "--exclude", excluded])
    run_program(
        [
            "btrfs",
            "subvolume",
            "snapshot",
            "-r",
            client.enrolled.current,
            client.enrolled.current.parent / SECOND,
        ]
    )
    assert differences(client.restore("--diff", "--json", "current")) == set()
    change()
    assert differences(client.restore("--diff", "--json", "current")) == CHANGES
    # Noted with a snapshot that was due, and so for all that come after it.
    notes = STATE.read_text().splitlines()
    assert [json.loads(line)["selected"]["sources"] for line in notes] == [
        [str(SOURCE)]
    ] * 2
    shutil.rmtree(SOURCE / "fresh")
    shutil.rmtree(excluded)
    (SOURCE / "sub").rename(outside / "sub")
    gone = differences(client.restore("--diff", "--json", "current", "/home/data/sub"))
    assert (f"{SOURCE}/sub", "deleted") in gone


def test_without_a_note_little_is_said_of_what_is_not_there(
    client: Client, outside: Path
) -> None:
    """One line for a directory, where a backup of one source would drown in others."""
    STATE.unlink()
    change()
    outcome = client.restore("--diff", "--json", FIRST, "/home")
    found = differences(outcome)
    assert (str(outside), "new") in found
    assert not any(path.startswith(f"{outside}/") for path, _ in found)
    assert CHANGES - found == {(f"{SOURCE}/fresh/file", "new")}


def test_verify_does_not_need_to_write(client: Client) -> None:
    """As on a machine whose file systems are mounted read-only."""
    client.backup(SECOND)
    read_only = f"mount --bind {SOURCE} {SOURCE} && mount -o remount,ro,bind {SOURCE}"
    program = client.enrolled.bin / "byteback-restore"
    shell = f"{read_only} && ! touch {SOURCE}/x 2>/dev/null && {program} --verify"
    outcome = run_program(["unshare", "--mount", "sh", "-c", shell])
    assert (outcome.stdout, outcome.stderr) == ("", "")


def test_verify_is_quiet_until_something_rots(client: Client) -> None:
    """Files that changed since are no fault of the backup; one byte that did is."""
    (SOURCE / "rewritten").write_text("something else")
    (SOURCE / "one").write_text("linked")
    (SOURCE / "other").hardlink_to(SOURCE / "one")
    client.backup(SECOND)
    shutil.copy2(SOURCE / "one", SOURCE / "copy")
    (SOURCE / "copy").rename(SOURCE / "one")
    os.chown(SOURCE / "one", 1, 1)
    outcome = client.restore("--verify", "--sample", "1000")
    assert (outcome.stdout, outcome.stderr) == ("", "")
    for snapshot in client.enrolled.current.parent.iterdir():
        run_program(["btrfs", "property", "set", snapshot, "ro", "false"])
        rotten = snapshot / str(SOURCE / "same")[1:]
        found = rotten.stat()
        rotten.write_text("s\0me")
        os.utime(rotten, ns=(found.st_atime_ns, found.st_mtime_ns))
    outcome = client.restore("--verify", "--sample", "1000", check=False)
    assert outcome.status == 1
    assert "1 of " in outcome.stderr
    assert str(SOURCE / "same") in outcome.stderr
    (SOURCE / "same").write_text("written to since")
    assert client.restore("--verify", "--sample", "1000").status == 0
