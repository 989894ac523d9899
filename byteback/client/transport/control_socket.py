"""The socket by which all sessions of a run share one ssh connection (D5)."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

from byteback import locking
from byteback.client.settings import RUN_DIRECTORY
from byteback.errors import BytebackError, LockedError
from byteback.system import process, signals
from byteback.system.ssh import openssh

SOCKET = "ssh"
EXIT_WAIT_S = 10.0  # for each ``ssh -O``, and for the connection's process to end
EXIT_TRIES = 2  # ``ssh -O exit`` may be killed itself
SWEEP_WAIT_S = 60.0  # for another run that tidies up

_MASTER = re.compile(r"\(pid=(\d+)\)")  # what ``ssh -O check`` prints


def make_directory(stack: contextlib.ExitStack) -> Path:
    """A private directory with a short path: a socket's has at most 107 bytes.

    Root's are locked for as long as ``stack`` lives. Those that a killed run has left
    are not locked: they are removed here, with the connections in them.
    """
    if os.geteuid() != 0:
        return Path(tempfile.mkdtemp(prefix="ssh-"))
    locking.make_private_directory(RUN_DIRECTORY)
    with locking.hold_directory(RUN_DIRECTORY, wait_s=SWEEP_WAIT_S):
        for left in RUN_DIRECTORY.glob("ssh-*"):
            with (
                contextlib.suppress(LockedError, OSError),
                signals.block_signals(),
                locking.hold_directory(left),
            ):
                remove(left)
        with locking.map_os_errors(RUN_DIRECTORY):
            directory = Path(tempfile.mkdtemp(prefix="ssh-", dir=RUN_DIRECTORY))
        stack.enter_context(locking.hold_directory(directory))
        return directory


def remove(directory: Path) -> None:
    """End the shared connection, if it is still there, and remove its directory."""
    try:
        for _ in range(EXIT_TRIES):
            if not (directory / SOCKET).exists() or _control(directory / SOCKET):
                break
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def end_master(path: Path) -> None:
    """End the shared connection and wait for its end; nothing if there is none.

    When its process ends it removes the socket by name. So it must be gone before the
    next one makes its own under this name.
    """
    if not path.exists():
        return
    with _master(path) as master:
        _control(path)
        if master is not None and not _has_ended(master):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(master, signal.SIGKILL)
            _has_ended(master)
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def _master(path: Path) -> Iterator[int | None]:
    """A descriptor of the process that has the connection; None: it does not answer."""
    with contextlib.ExitStack() as stack:
        found = _MASTER.search(_control(path, "check") or "")
        descriptor = None
        if found is not None:
            with contextlib.suppress(OSError, OverflowError):
                descriptor = os.pidfd_open(int(found[1]))
                stack.callback(os.close, descriptor)
        yield descriptor


def _has_ended(master: int) -> bool:
    waiting = select.poll()
    waiting.register(master, select.POLLIN)
    return bool(waiting.poll(EXIT_WAIT_S * 1000))


def _control(path: Path, command: str = "exit") -> str | None:
    """The answer of the connection's process; None if there was none in time."""
    with contextlib.suppress(BytebackError):
        finished = process.run(
            openssh.control_argv(path, command),
            timeout_s=EXIT_WAIT_S,
            tolerate=(0, openssh.STATUS_FAILED),
        )
        return finished.stderr.decode("utf-8", "replace")
    return None
