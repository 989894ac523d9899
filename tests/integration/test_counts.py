"""What a backup costs, in counts that no busy machine changes.

Times say little on a machine that does other things as well (tests/benchmarks measures
them); connections, system calls and bytes say when something is grossly worse than it
was. Each bound is about one and a half times what was counted on rsync 3.5.0, OpenSSH
9.2 and Linux 6.18, which stands beside it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
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
from tests.integration.programs import (
    do_without,
    require_program,
    run_program,
)

SMALL_FILES = 1000
SMALL_SIZE = 2000  # bytes
LARGE_SIZE = 64 << 20
BLOCK = 4096
SNAPSHOTS = 40
KIB = 1 << 10
STRACE = ["strace", "-f", "-ff", "-qq", "-o"]  # one file a process
NOT_OURS = {"rsync", "ssh", "sshd"}  # plain rsync over ssh has these as well
STATE = Path("/var/lib/byteback")  # what a client remembers from run to run


@dataclass
class Counts:
    """What one command cost."""

    connections: int = 0  # that this machine accepted
    sessions: int = 0  # forced commands that sshd started
    wire: int = 0  # bytes, both directions and headers
    disc: int = 0  # bytes by which the store grew
    client_memory: int = 0  # bytes of byteback's own processes at their peak
    server_memory: int = 0
    samples: int = 0  # readings of memory while rsync ran on the server


@dataclass
class Trace:
    """The system calls of a command, one list a process, by its program's name."""

    processes: list[tuple[str, list[str]]] = field(default_factory=list)

    def calls(self, program: str, name: str = "") -> int:
        """How often all processes of ``program`` called ``name``, or anything."""
        return sum(
            sum(call == name or not name for call in calls)
            for who, calls in self.processes
            if who == program
        )

    def names(self) -> list[str]:
        """The programs, for a test that fails."""
        return sorted(who for who, _ in self.processes)


@dataclass
class Story:
    """What everything cost, in the order in which it was done."""

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


# --- Connections and sessions ----------------------------------------------------


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


# --- Processes and system calls --------------------------------------------------


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


# --- Bytes -----------------------------------------------------------------------


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


# --- How it is counted -----------------------------------------------------------


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


def counted(client: EnrolledClient, log: Path, argv: list[str]) -> Counts:
    """Run a command and count what it takes."""
    counts = Counts()
    connections, wire = accepted(), sent()
    sessions, disc = sessions_in(log), used(client.store)
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as running:
        while running.poll() is None:
            sample_memory(counts, running.pid, client.user.uid)
            time.sleep(0.02)
    assert running.returncode == 0
    counts.connections = accepted() - connections
    counts.sessions = sessions_in(log) - sessions
    counts.wire = sent() - wire
    counts.disc = used(client.store) - disc
    return counts


def accepted() -> int:
    """TCP connections that this network namespace has accepted."""
    lines = Path("/proc/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[names.index("PassiveOpens")])


def sent() -> int:
    """Bytes that the loopback interface has sent."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            return int(numbers.split()[8])
    raise LookupError("lo")


def sessions_in(log: Path) -> int:
    """How many forced commands sshd has started."""
    return log.read_text().count("Starting session: forced-command")


def used(store: Path) -> int:
    """Bytes in use on the store's volume, once all is on disc."""
    run_program(["sync", "--file-system", store])
    status = os.statvfs(store)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def sample_memory(counts: Counts, client: int, server_uid: int) -> None:
    """Note what byteback's own processes take, if a transfer is running."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    server: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                pid = int(entry.name)
                before, _, after = (entry / "stat").read_text().rpartition(")")
                names[pid] = before.partition("(")[2]
                parents[pid] = int(after.split()[1])
                if entry.stat().st_uid == server_uid:
                    server.add(pid)
    # bwrap's are root's in /proc, for nobody may look into them.
    server |= {pid for pid in parents if is_below(pid, server, parents)}
    if not any(names[pid] == "rsync" for pid in server):
        return
    counts.samples += 1
    own = {pid for pid, name in names.items() if name not in NOT_OURS}
    ours = {pid for pid in own if is_below(pid, {client}, parents)} - server
    counts.client_memory = max(counts.client_memory, memory_of(ours))
    counts.server_memory = max(counts.server_memory, memory_of(own & server))


def is_below(pid: int, roots: set[int], parents: dict[int, int]) -> bool:
    """Whether a process is one of ``roots`` or descends from one."""
    while pid in parents:
        if pid in roots:
            return True
        pid = parents[pid]
    return False


def memory_of(pids: set[int]) -> int:
    """Bytes of memory, what several share divided among them."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, LookupError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(re.findall(r"^Pss: +(\d+) kB", text, re.MULTILINE)[0]) * KIB
    return total


@contextlib.contextmanager
def traced(argv: list[str]) -> Iterator[tuple[list[str], Trace]]:
    """A command line that runs another one, and what was traced, after the block."""
    trace = Trace()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        yield [*STRACE, f"{directory}/trace", *argv], trace
        trace.processes += read_trace(Path(directory))


@contextlib.contextmanager
def traced_server(sshd: SshServer) -> Iterator[Trace]:
    """What sshd starts during the block; its system calls are there after it."""
    trace = Trace()
    pid = (sshd.log.parent / "pid").read_text().strip()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        tracer = subprocess.Popen([*STRACE, f"{directory}/trace", "-p", pid])
        try:
            wait_until(lambda: tracer_of(pid) == tracer.pid)
            yield trace
            wait_until(lambda: traced_by(tracer.pid) == [pid])
        finally:
            tracer.terminate()
            tracer.wait()
        trace.processes += read_trace(Path(directory))


def tracer_of(pid: str) -> int:
    """Which process traces another; 0 for none."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"^TracerPid:\s+(\d+)", status, re.MULTILINE)[0])


def traced_by(tracer: int) -> list[str]:
    """The processes that one traces."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if tracer_of(entry.name) == tracer:
                    found.append(entry.name)
    return found


def wait_until(is_true: Callable[[], bool]) -> None:
    """Return once it is, within ten seconds."""
    deadline = time.monotonic() + 10
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def read_trace(directory: Path) -> list[tuple[str, list[str]]]:
    """Of each process the name of the last program that it became, and its calls.

    sshd's own have no name, for they were there, or come of one that was.
    """
    processes = []
    for path in sorted(directory.iterdir()):
        name = ""
        calls: list[str] = []
        for line in path.read_text(errors="replace").splitlines():
            call = line.partition("(")[0]
            if call == "execve" and line.endswith(" = 0"):
                name, calls = Path(line.split('"')[1]).name, []
            elif call.isidentifier():
                calls.append(call)
        processes.append((name, calls))
    return processes
