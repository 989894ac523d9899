"""This machine: its name, its processes, its programs."""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path
from typing import NamedTuple

from byteback.errors import NotSetUpError
from byteback.system import mounts, process

MACHINE_ID = Path("/etc/machine-id")
_MACHINE_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
SERVER_PROGRAMS = frozenset(
    {
        *("byteback-clients", "byteback-prune", "byteback-receive"),
        *("byteback-setup-client-receive", "byteback-setup-server"),
        *("byteback-snapshot", "byteback-status"),
    }
)


class Work(NamedTuple):
    """The work that processes have done so far."""

    transferred: int  # bytes that went through read(2), write(2) and their kin
    blocks: int  # bytes that a disc had to deliver or take
    processor_s: float


def full_host_name() -> str:
    """The fully-qualified name of this machine, as ``hostname --fqdn`` finds it.

    Falls back to the kernel's node name where the resolver knows nothing better.
    ``socket.getfqdn`` is no use: it takes the first alias with a dot, even
    ``localhost.localdomain``.
    """
    node = socket.gethostname()
    try:
        found = socket.getaddrinfo(node, None, flags=socket.AI_CANONNAME)
    except OSError:
        return node
    name = found[0][3] if found else ""
    if not name or name.split(".")[0] == "localhost":
        return node
    return name


def machine_id(path: Path = MACHINE_ID) -> str | None:
    """An identity that tells this machine from a copy; None if it has none.

    systemd mounts one over the file that is another one after each start, where /etc
    cannot be written to (machine-id(5)): that tells nothing.
    """
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    is_known = _MACHINE_ID.fullmatch(text) and text.strip("0")
    is_mounted = any(mount.point == str(path) for mount in mounts.read())
    return text if is_known and not is_mounted else None


def work_of(pid: int) -> tuple[str, Work] | None:
    """The name of a process's program, and its work; None if the kernel tells neither.

    Only root is told of other users' processes (proc_pid_io(5)).
    """
    import psutil

    try:
        process = psutil.Process(pid)
        counters, times = process.io_counters(), process.cpu_times()
        return process.name(), Work(
            counters.read_chars + counters.write_chars,
            counters.read_bytes + counters.write_bytes,
            times.user + times.system,
        )
    except (psutil.Error, OSError, NotImplementedError, RuntimeError):
        return None


def program_path(name: str) -> Path:
    """The absolute path of one of byteback's own programs.

    It stands beside the program that is running (a checkout's bin/, /usr/bin); else
    the PATH decides. Raises NotSetUpError if it is nowhere.
    """
    if sys.argv and sys.argv[0]:
        beside = Path(sys.argv[0]).resolve().parent / name
        if os.access(beside, os.X_OK):
            return beside
    found = process.find_program(name)
    if found is None:
        package = "byteback-server" if name in SERVER_PROGRAMS else "byteback"
        raise NotSetUpError(
            f"{name} is not installed", hint=f"install the package {package} again"
        )
    return Path(found)


def is_systemd_running() -> bool:
    """True if systemd is init here; the test is sd_booted(3)'s."""
    return Path("/run/systemd/system").is_dir()
