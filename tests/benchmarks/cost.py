"""Counts what a command costs each side: time, processor, memory, bytes.

The two sides are one machine here. What each of them starts is told apart by control
groups, one a side, whose own counters tell the processor's time; where there are none,
the whole machine's is taken.
"""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SAMPLE_S = 0.1
SAMPLE_SHARE = 20  # reading memory takes at most this part of the time
NOT_OWN = {"rsync", "ssh", "sshd"}  # which plain rsync over ssh has as well
PREFIX = "byteback-benchmark-"
BASE, OWN = "rsync", "byteback"  # contestants
SECTOR = 512  # bytes, in the kernel's statistics of discs


@dataclass
class Memory:
    """Peaks of one side, in bytes; what processes share is divided among them."""

    all: int = 0
    own: int = 0  # without rsync and ssh, while an rsync ran on the server


@dataclass
class Sample:
    """One run of one command."""

    seconds: float
    wire: int  # bytes on the loopback interface, both directions
    disc: int  # bytes that the store grew by
    read: int  # bytes that were read from the store's disc
    connections: int  # that were accepted
    cpu: tuple[float, float]  # seconds, of the client's and of the server's side
    memory: tuple[Memory, Memory]


@dataclass
class Group:
    """One side: a server or a client with all that it starts."""

    directory: Path | None  # its control group
    is_v2: bool = False

    def wrap(self, argv: Sequence[str | Path]) -> list[str | Path]:
        """A command line that runs ``argv`` on this side."""
        if self.directory is None:
            return list(argv)
        script = 'echo 0 >"$0" && exec "$@"'
        return ["sh", "-c", script, self.directory / "cgroup.procs", *argv]

    def cpu(self) -> float:
        """Seconds of processor time that this side has taken."""
        if self.directory is None:
            return 0.0
        if self.is_v2:
            text = (self.directory / "cpu.stat").read_text()
            return int(re.findall(r"^usage_usec (\d+)", text, re.MULTILINE)[0]) / 1e6
        return int((self.directory / "cpuacct.usage").read_text()) / 1e9

    def pids(self) -> list[int]:
        """Its processes."""
        if self.directory is None:
            return []
        text = (self.directory / "cgroup.procs").read_text()
        return [int(word) for word in text.split()]

    def remove(self) -> None:
        """Take the control group away, once its last process has ended."""
        for _ in range(50):
            if self.directory is None or not self.directory.exists():
                return
            with contextlib.suppress(OSError):
                self.directory.rmdir()
                return
            time.sleep(0.1)


@dataclass
class Sides:
    """Client and server, and what is theirs together."""

    client: Group
    server: Group
    store: Path  # of which the use is measured

    @property
    def are_apart(self) -> bool:
        """True if this machine has control groups to tell them apart."""
        return self.client.directory is not None

    def measured(self, action: Callable[[], object]) -> Sample:
        """Run ``action`` and count; the store is synced before and after."""
        disc, read = used_bytes(self.store), read_bytes(self.store)
        wire, connections = wire_bytes(), accepted_connections()
        cpu, machine = self._cpu(), machine_cpu()
        with Sampler((self.client, self.server)) as sampler:
            started = time.monotonic()
            action()
            seconds = time.monotonic() - started
        now = self._cpu()
        taken = (now[0] - cpu[0], now[1] - cpu[1])
        return Sample(
            seconds,
            wire_bytes() - wire,
            used_bytes(self.store) - disc,
            read_bytes(self.store) - read,
            accepted_connections() - connections,
            taken if self.are_apart else (machine_cpu() - machine, 0.0),
            sampler.memory,
        )

    def _cpu(self) -> tuple[float, float]:
        return self.client.cpu(), self.server.cpu()


@dataclass
class Sampler:
    """Reads the memory of both sides again and again, in a thread of its own."""

    groups: tuple[Group, Group]
    memory: tuple[Memory, Memory] = field(default_factory=lambda: (Memory(), Memory()))
    _end: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Sampler:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        pause = 0.0
        while not self._end.wait(pause):
            started = time.monotonic()
            self._take()
            pause = max(SAMPLE_S, SAMPLE_SHARE * (time.monotonic() - started))

    def _take(self) -> None:
        both = [[_read(pid) for pid in group.pids()] for group in self.groups]
        is_transfer = any(name == "rsync" for name, _ in both[1])
        for memory, read in zip(self.memory, both, strict=True):
            memory.all = max(memory.all, sum(size for _, size in read))
            if is_transfer:
                own = sum(size for name, size in read if name not in NOT_OWN)
                memory.own = max(memory.own, own)


def _read(pid: int) -> tuple[str, int]:
    """A process's name and the bytes that it takes; nothing if it has ended."""
    with contextlib.suppress(OSError, LookupError):
        place = Path(f"/proc/{pid}")
        name = (place / "comm").read_text().strip()
        text = (place / "smaps_rollup").read_text()
        found = re.findall(r"^Pss: +(\d+) kB", text, re.MULTILINE)
        return name, int(found[0]) * 1024
    return "", 0


def make_sides(store: Path) -> Sides:
    """Two empty groups, where this machine has control groups."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, kind, options = line.split()[:4]
        is_v2 = kind == "cgroup2" and Path(point, "cpu.stat").exists()
        if is_v2 or (kind == "cgroup" and "cpuacct" in options.split(",")):
            for left in Path(point).glob(f"{PREFIX}*"):
                with contextlib.suppress(OSError):  # in use by a run that goes on
                    left.rmdir()
            with contextlib.suppress(OSError):
                client = Group(_make(Path(point), is_v2), is_v2)
                server = Group(_make(Path(point), is_v2), is_v2)
                return Sides(client, server, store)
    return Sides(Group(None), Group(None), store)


def _make(point: Path, is_v2: bool) -> Path:
    directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=point))
    # What is found there may not be what was mounted: some containers show a stub.
    (directory / ("cpu.stat" if is_v2 else "cpuacct.usage")).read_text()
    return directory


def used_bytes(store: Path) -> int:
    """Bytes in use on the store's volume, after a sync."""
    subprocess.run(["sync", "--file-system", store], check=True)
    status = os.statvfs(store)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def read_bytes(store: Path) -> int:
    """Bytes that were ever read from the disc that the store is on.

    A file system of one disc, whose number stat(2) does not tell of a btrfs.
    """
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        if words[4] == str(store):
            device = Path(words[words.index("-") + 2]).resolve().name
            statistic = Path("/sys/class/block", device, "stat").read_text()
            return int(statistic.split()[2]) * SECTOR
    return 0


def wire_bytes() -> int:
    """Bytes that the loopback interface of this network namespace has sent."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            return int(numbers.split()[8])
    raise LookupError("lo")


def accepted_connections() -> int:
    """TCP connections that this network namespace has accepted."""
    lines = Path("/proc/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[names.index("PassiveOpens")])


def machine_cpu() -> float:
    """Seconds of processor time that this whole machine has taken."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    busy = sum(int(fields[index]) for index in (1, 2, 3, 6, 7))
    return busy / os.sysconf("SC_CLK_TCK")


HEAD = (
    f"{'step':14} {'who':10} {'wall s':>8} {'ratio':>6} {'cpu client, server':>18}"
    f" {'wire MB':>9} {'disc MB':>9} {'memory MB':>12} {'read MB':>8}"
    f" {'connections':>11}"
)


@dataclass
class Table:
    """All samples, by step and contestant."""

    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)

    def add(self, step: str, who: str, sample: Sample) -> None:
        """Note one sample."""
        self.samples.setdefault((step, who), []).append(sample)

    def lines(self) -> list[str]:
        """One line a step and contestant, medians, the ratio to plain rsync."""
        found = []
        for (step, who), samples in self.samples.items():
            base = self.samples.get((step, BASE), samples)
            seconds = _median(samples, lambda s: s.seconds)
            found.append(
                f"{step:14} {who:10} {seconds:8.2f}"
                f" {seconds / _median(base, lambda s: s.seconds):6.2f}"
                f" {_pair(samples, lambda s, side: s.cpu[side], 2):>18}"
                f" {_median(samples, lambda s: s.wire) / 1e6:9.2f}"
                f" {_median(samples, lambda s: s.disc) / 1e6:9.2f}"
                f" {_pair(samples, lambda s, side: s.memory[side].all / 1e6, 0):>12}"
                f" {_median(samples, lambda s: s.read) / 1e6:8.2f}"
                f" {_median(samples, lambda s: s.connections):11.0f}"
            )
        return [*found, *self._own_memory()]

    def _own_memory(self) -> list[str]:
        """The memory of byteback's own processes while rsync runs."""
        found = []
        for (step, who), samples in self.samples.items():
            if who == OWN:
                peaks = [s.memory for s in samples]
                client = max(memory[0].own for memory in peaks) / 1e6
                server = max(memory[1].own for memory in peaks) / 1e6
                if client and server:  # else too short to be seen
                    found.append(
                        f"{step}: beyond rsync and ssh byteback took {client:.1f} MB"
                        f" at the client, {server:.1f} MB at the server"
                    )
        return found


def _median(samples: Sequence[Sample], value: Callable[[Sample], float]) -> float:
    return statistics.median(value(sample) for sample in samples)


def _pair(
    samples: Sequence[Sample], value: Callable[[Sample, int], float], digits: int
) -> str:
    client, server = (
        statistics.median(value(sample, side) for sample in samples) for side in (0, 1)
    )
    return f"{client:.{digits}f} {server:{8 if digits else 5}.{digits}f}"
