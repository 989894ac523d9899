"""Counts what programs cost: sessions, bytes, memory, processes and system calls."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.conftest import LIBRARY, EnrolledClient, SshServer
from tests.integration.programs import run_program
from tests.waiting import wait_until

KIB = 1 << 10
STRACE = ["strace", "-f", "-ff", "-qq", "-o"]  # one file a process
# Plain rsync over ssh has these as well; the last two are sshd's since OpenSSH 9.8.
NOT_OURS = {"rsync", "ssh", "sshd", "sshd-session", "sshd-auth"}


@dataclass
class Counts:
    """The cost of one command."""

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


@contextlib.contextmanager
def seldom_watched() -> Iterator[None]:
    """Have the server look at no transfer while it runs: how often depends on time."""
    runner = LIBRARY / "byteback/server/transfer/runner.py"
    text = runner.read_text()
    runner.write_text(text.replace("WATCH_S = 2.0", "WATCH_S = 3600.0"))
    assert runner.read_text() != text
    try:
        yield
    finally:
        runner.write_text(text)


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
    """True if a process is one of ``roots`` or descends from one."""
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
    """The programs that sshd starts in the block; after it, with their system calls."""
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
