"""The cost of a backup, in counts that no busy machine changes.

Times say little on a machine that does other things as well (tests/benchmarks measures
them); connections, system calls and bytes say when something is grossly worse than it
was. Each bound is about one and a half times what was counted on rsync 3.5.0, OpenSSH
9.2 and Linux 6.18, which stands beside it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.integration.conftest import (
    CONFIGURATION,
    EnrolledClient,
    SshServer,
    enrolled,
    mounted_volume,
)
from tests.integration.counting import (
    KIB,
    Counts,
    Trace,
    counted,
    seldom_watched,
    traced,
    traced_server,
)
from tests.integration.programs import do_without, require_program, run_program

SMALL_FILES = 1000
SMALL_SIZE = 2000  # bytes
LARGE_SIZE = 64 << 20
BLOCK = 4096
SNAPSHOTS = 40
STATE = Path("/var/lib/byteback")  # what a client remembers from run to run


@dataclass
class Story:
    """The cost of each thing, in the order in which it was done."""

    first: Counts
    unchanged: Counts
    block: Counts
    search: Counts
    restore: Counts
    server: Trace = field(repr=False)  # of the unchanged backup
    client: Trace = field(repr=False)
    searching: Trace = field(repr=False)  # of the search, at the server


@pytest.fixture(scope="module")
def story(installed: Path, sshd: SshServer) -> Iterator[Story]:
    """A client's first days, counted."""
    require_program("strace")
    if run_program(["strace", "-o", "/dev/null", "true"], check=False).status != 0:
        do_without("no program can be traced here")
    with (
        mounted_volume(4 << 30) as volume,
        enrolled(installed, volume, sshd) as client,
        tempfile.TemporaryDirectory(prefix="source-", dir="/srv") as directory,
        seldom_watched(),
    ):
        yield tell(client, sshd, Path(directory))


def tell(client: EnrolledClient, sshd: SshServer, source: Path) -> Story:
    """Back up, search and restore, with everything counted."""
    shutil.rmtree(STATE, ignore_errors=True)
    # Else up to 3 MiB more, to measure the line, and then fewer on a busy machine.
    (CONFIGURATION / "compress").write_text("none\n")
    make_tree(source)
    log = sshd.log
    backup = [str(client.bin / "byteback-backup"), "--source", str(source)]
    restore = [str(client.bin / "byteback-restore")]
    first = counted(client, log, backup)
    with traced_server(sshd) as server, traced(backup) as (tracing, here):
        unchanged = counted(client, log, tracing)
    change_a_block(source / "large")
    make_due(client)
    block = counted(client, log, backup)
    add_snapshots(client)
    with traced_server(sshd) as searching:
        search = [*restore, "--all", f"{source}/**/file-0777"]
        found = counted(client, log, search)
    target = source / "restored"
    words = ["--restore", "--to", str(target), str(source / "large")]
    restored = counted(client, log, [*restore, *words])
    assert next(target.rglob("large")).stat().st_size == LARGE_SIZE
    return Story(first, unchanged, block, found, restored, server, here, searching)


def test_a_backup_is_one_connection_and_three_sessions(story: Story) -> None:
    for counts in (story.first, story.unchanged, story.block):
        assert counts.connections == 1
        assert counts.sessions == 3  # ping, the transfer, and complete


def test_a_search_is_one_connection_and_one_session(story: Story) -> None:
    assert story.search.connections == 1
    assert story.search.sessions == 1


def test_a_restore_is_one_connection(story: Story) -> None:
    assert story.restore.connections == 1
    assert story.restore.sessions <= 6  # 4


def test_few_processes_are_started(story: Story) -> None:
    assert len(story.server.processes) <= 25, story.server.names()  # 17
    assert len(story.client.processes) <= 18, story.client.names()  # 12


def test_an_unchanged_file_takes_few_system_calls(story: Story) -> None:
    if "bwrap" not in story.server.names():
        do_without("bubblewrap does not work here, and rsync has to look out for links")
    assert story.client.calls("rsync") / SMALL_FILES <= 8  # 5.2
    assert story.server.calls("rsync") / SMALL_FILES <= 14  # 9.2
    # 0.06. Twenty-three where rsync walks to each file from the top of the tree.
    assert story.server.calls("rsync", "openat") / SMALL_FILES <= 0.2


def test_a_search_looks_at_one_tree_of_many(story: Story) -> None:
    # Two for each directory of one tree, Python's own reading included.
    assert story.searching.calls("byteback-receive", "getdents64") <= 200  # 132
    # 2,800 where each directory is looked up in each snapshot.
    assert story.searching.calls("byteback-receive", "newfstatat") <= 1600  # 1,081


def test_an_unchanged_backup_sends_little(story: Story) -> None:
    assert story.unchanged.wire <= 48 * KIB  # 31


def test_a_changed_block_costs_little(story: Story) -> None:
    assert story.block.wire <= 320 * KIB  # 212: checksums of all blocks
    assert story.block.disc <= 160 * KIB  # 72 with two copies of all metadata


@pytest.mark.parametrize("name", ["first", "restore"])
def test_byteback_itself_takes_little_memory(story: Story, name: str) -> None:
    """Beyond what plain rsync over ssh takes, on either side while it runs."""
    counts: Counts = getattr(story, name)
    assert counts.samples >= 3
    assert 0 < counts.client_memory <= 15_000_000  # 13
    assert 0 < counts.server_memory <= 15_000_000  # 13


def make_tree(source: Path) -> None:
    """Small files in forty directories, and a large one that nothing compresses."""
    for number in range(SMALL_FILES):
        directory = source / f"{number % 40:02}"
        directory.mkdir(exist_ok=True)
        (directory / f"file-{number:04}").write_bytes(os.urandom(SMALL_SIZE))
    (source / "large").write_bytes(os.urandom(LARGE_SIZE))


def change_a_block(path: Path) -> None:
    """Overwrite one block in the middle."""
    with path.open("r+b") as file:
        file.seek(LARGE_SIZE // 2)
        file.write(os.urandom(BLOCK))


def make_due(client: EnrolledClient) -> None:
    """Date the snapshot into the past, so that the next one is due."""
    host = client.store / client.host
    for number, path in enumerate(host.glob("2*")):
        path.rename(host / f"2001-01-{number + 1:02}T00:00+0000")


def add_snapshots(client: EnrolledClient) -> None:
    """A history in which hardly anything changes."""
    host = client.store / client.host
    for number in range(SNAPSHOTS):
        there = host / f"2002-01-01T00:{number:02}+0000"
        run_program(
            ["btrfs", "-q", "subvolume", "snapshot", "-r", str(host / "current"), there]
        )
