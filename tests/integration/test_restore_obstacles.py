"""A restore ends, brings what it can and names the rest, whatever is in its way."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import EnrolledClient
from tests.integration.faults.trees import change_at_random, read_state
from tests.integration.programs import Outcome, do_without, run_program

TREE = Path("/home/data")
NAMES = ("a/one", "b/two", "c/three")
LAYOUTS = 6  # random ones


@dataclass(frozen=True)
class Client:
    """byteback-restore in place, on an enrolled client."""

    enrolled: EnrolledClient

    def backup(self) -> None:
        program = self.enrolled.bin / "byteback-backup"
        run_program([program, "--source", TREE])

    def restore(self, *words: str | Path) -> Outcome:
        """A run that stands still says so after a minute, and then fails the test."""
        program = self.enrolled.bin / "byteback-restore"
        outcome = run_program(
            [program, "-r", "--in-place", "--io-timeout", "60", *words], check=False
        )
        assert "stood still" not in outcome.stderr
        return outcome


@pytest.fixture
def client(enrolled_client: EnrolledClient) -> Iterator[Client]:
    shutil.rmtree(TREE, ignore_errors=True)
    TREE.mkdir(parents=True)
    try:
        yield Client(enrolled_client)
    finally:
        shutil.rmtree(TREE, ignore_errors=True)


def make_full_directory(path: Path) -> Callable[[], object]:
    path.unlink()
    (path / "full/of").mkdir(parents=True)
    return lambda: shutil.rmtree(path)


def make_mount_point(path: Path) -> Callable[[], object]:
    path.unlink()
    path.write_text("what a mount is on")
    run_program(["mount", "--bind", "/etc/hosts", path])
    return lambda: run_program(["umount", path])


def make_immutable(path: Path) -> Callable[[], object]:
    path.unlink()
    path.write_text("nobody changes this")
    if run_program(["chattr", "+i", path], check=False).status != 0:
        do_without("this file system has no immutable files")
    return lambda: run_program(["chattr", "-i", path])


@pytest.mark.parametrize(
    "put_in_the_way", [make_full_directory, make_mount_point, make_immutable]
)
def test_the_other_names_of_a_file_are_restored(
    client: Client, put_in_the_way: Callable[[Path], Callable[[], object]]
) -> None:
    """rsync itself waits for ever, ends with a protocol error, or restores none."""
    for name in NAMES:
        (TREE / name).parent.mkdir()
    (TREE / NAMES[0]).write_text("one file of three names")
    for name in NAMES[1:]:
        (TREE / name).hardlink_to(TREE / NAMES[0])
    client.backup()
    for number, name in enumerate(NAMES):
        others = [TREE / other for other in NAMES if other != name]
        take_away = put_in_the_way(TREE / name)
        try:
            for lost in (others, others[:1]):
                for path in lost:
                    path.unlink()
                done = client.restore("--yes", TREE)
                assert done.status == 3, f"{number} {lost}"
                assert name in done.stderr
                for path in others:
                    assert path.read_text() == "one file of three names"
        finally:
            take_away()
        assert client.restore("--yes", TREE).status == 0
        assert len({(TREE / other).stat().st_ino for other in NAMES}) == 1


def test_any_layout(client: Client) -> None:
    """Whatever users do to a tree: it comes back, but for what is named."""
    dice = random.Random(20261122)  # noqa: S311 # no secret
    for _ in range(LAYOUTS):
        for _ in range(4):
            change_at_random(TREE, dice)
        client.backup()
        backup = client.enrolled.current / str(TREE)[1:]
        wanted = read_state(backup)
        for _ in range(3):
            change_at_random(TREE, dice)
        dry = client.restore("--dry-run", TREE)
        done = client.restore("--yes", TREE)
        assert dry.status == done.status
        found = read_state(TREE)
        wrong = {name for name, state in wanted.items() if found.get(name) != state}
        named = {name for name in wrong if f"'{TREE}/{name}'" in done.stderr}
        assert wrong == named, done.stderr
        assert (done.status == 3) == bool(wrong), done.stderr
        for name in wrong:
            assert list((TREE / name).iterdir())


def test_a_way_that_leads_elsewhere_is_not_taken(client: Client) -> None:
    """A user who replaces a directory by a link would send root elsewhere."""
    (TREE / "sub").mkdir()
    (TREE / "sub/file").write_text("mine")
    client.backup()
    elsewhere = TREE / "elsewhere"
    elsewhere.mkdir()
    shutil.rmtree(TREE / "sub")
    (TREE / "sub").symlink_to(elsewhere)
    for words in (["--dry-run"], ["--yes"]):
        outcome = client.restore(*words, TREE / "sub/file")
        assert outcome.status == 3
        assert f"'{TREE}/sub/file': '{TREE}/sub' is a link" in outcome.stderr
        assert list(elsewhere.iterdir()) == []
    assert client.restore("--yes", TREE / "sub").status == 0
    assert (TREE / "sub/file").read_text() == "mine"
    assert list(elsewhere.iterdir()) == []


def test_what_goes_away_meanwhile_is_named(client: Client) -> None:
    """Whatever the reason: here another program that removes what was restored."""
    (TREE / "file").write_text("x")
    (TREE / "other").write_text("y")
    client.backup()
    for name in ("file", "other"):
        (TREE / name).unlink()
    ssh = Path("/usr/local/sbin/ssh")
    ssh.write_text(f'#!/bin/sh\n/usr/bin/ssh "$@"\ns=$?\nrm -f {TREE}/file\nexit $s\n')
    ssh.chmod(0o755)
    try:
        for words in ([TREE / "file"], [TREE / "file", TREE / "other"], [TREE]):
            outcome = client.restore("--yes", *words)
            assert outcome.status == 3
            assert f"not restored: '{TREE}/file' is not there" in outcome.stderr
    finally:
        ssh.unlink()
    assert (TREE / "other").read_text() == "y"
    assert client.restore("--yes", TREE).status == 0
