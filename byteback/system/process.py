"""Starts every outside program, and is the only module that does."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from byteback.errors import SHORTAGES, ToolError, quote
from byteback.system import signals
from byteback.system.diary import Diary

logger = Diary(__name__)

# sbin as well: cron and sshd give a PATH without it, and btrfs and mount live there.
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KEPT_VARIABLES = ("HOME", "LOGNAME", "USER", "TERM", "SSH_AUTH_SOCK", "TZ", "TMPDIR")
DETAIL_LINES = 5
# Debian's, where a package is not called like its programs.
PROGRAM_PACKAGES = {
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "btrfs": "btrfs-progs",
    "mkfs.btrfs": "btrfs-progs",
    "rsync": "rsync",
    "bwrap": "bubblewrap",
}
POLL_S = 0.05
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
TO_STDOUT = subprocess.STDOUT
NULL = subprocess.DEVNULL
PIPE = subprocess.PIPE
Process = subprocess.Popen[bytes]
TimeoutExpired = subprocess.TimeoutExpired
_started: set[int] = set()  # pids


class Finished(NamedTuple):
    """A program that has ended: how, and what it printed."""

    argv: tuple[str, ...]
    status: int  # exit status, or minus the signal that ended it
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text; bytes that are no UTF-8 become surrogates."""
        return self.stdout.decode("utf-8", "surrogateescape")

    @property
    def stderr_tail(self) -> tuple[str, ...]:
        """The last few lines of standard error."""
        return last_lines(self.stderr)


def last_lines(output: bytes) -> tuple[str, ...]:
    """The last few non-blank lines that a program printed, for an error's details."""
    lines = output.decode("utf-8", "surrogateescape").splitlines()
    return tuple([line for line in lines if line.strip()][-DETAIL_LINES:])


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """A small, predictable environment: messages in English, sbin on the PATH."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return {**kept, "PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", **(extra or {})}


def run(
    argv: Sequence[str | Path],
    *,
    tolerate: Collection[int] = (0,),
    stdin: bytes | None = None,
    timeout_s: float | None = None,
    extra_env: Mapping[str, str] | None = None,
    in_child: Callable[[], None] | None = None,
    pass_fds: Collection[int] = (),
) -> Finished:
    """Run a program to its end and return what it printed.

    Raises ToolError if it is missing, takes longer than ``timeout_s`` or ends with a
    status that is not in ``tolerate``. On any exception the program is stopped first.
    """
    with signals.block_signals():
        running = start(
            argv,
            stdin=subprocess.PIPE,
            extra_env=extra_env,
            in_child=in_child,
            pass_fds=pass_fds,
        )
        words = tuple(os.fspath(word) for word in argv)
        try:
            with signals.allow_signals():
                stdout, stderr = running.communicate(stdin or b"", timeout_s)
        except subprocess.TimeoutExpired as error:
            raise ToolError(
                f"{words[0]} did not end within {timeout_s:g} seconds",
                details=last_lines(error.stderr or b""),
            ) from None
        finally:
            stop(running)
            _close_pipes(running)
    finished = Finished(words, running.returncode, stdout, stderr)
    for line in finished.stderr_tail:
        logger.debug("%s: %s", Path(words[0]).name, line)
    if finished.status not in tolerate:
        raise failure(finished)
    return finished


def failure(finished: Finished, message: str | None = None) -> ToolError:
    """The error for a program that ended badly."""
    program = Path(finished.argv[0]).name
    how = describe_status(finished.status)
    return ToolError(
        message or f"{program} {how}: {command_line(finished.argv)}",
        details=finished.stderr_tail,
        status=finished.status,
    )


def describe_status(status: int) -> str:
    """``failed with status N`` or ``was ended by signal N``."""
    if status < 0:
        return f"was ended by signal {-status}"
    return f"failed with status {status}"


def command_line(argv: Sequence[str]) -> str:
    """``argv`` as a shell would take it, for people to read and paste."""
    import shlex

    from byteback.errors import escape

    return escape(shlex.join(argv))


def start(
    argv: Sequence[str | Path],
    *,
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | None = subprocess.PIPE,
    stderr: int | None = subprocess.PIPE,
    cwd: Path | None = None,
    pass_fds: Collection[int] = (),
    in_child: Callable[[], None] | None = None,
    extra_env: Mapping[str, str] | None = None,
    new_session: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a program and return it running; the caller waits for it.

    ``in_child`` runs between fork and exec: it is how a transfer confines itself.
    Raises ToolError if the program is missing or cannot be started.
    """
    words = tuple(os.fspath(word) for word in argv)
    if logger.is_read:
        logger.debug("starting %s", command_line(words))
    try:
        running = subprocess.Popen(
            words,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd or _working_directory(),
            pass_fds=tuple(pass_fds),
            preexec_fn=in_child,  # noqa: PLW1509 # one thread only, by design
            env=environment(extra_env),
            start_new_session=new_session,
        )
    except OSError as error:
        raise _not_started(words[0], error) from None
    _started.add(running.pid)
    return running


def stop(running: subprocess.Popen[bytes], *, grace_s: float = 5.0) -> None:
    """End a running program: SIGTERM first, SIGKILL when it does not listen."""
    if running.poll() is not None:
        return
    running.terminate()
    try:
        running.wait(grace_s)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()


def stop_group(running: subprocess.Popen[bytes], *, grace_s: float = 5.0) -> None:
    """End a program that leads a session of its own, and whatever it has forked.

    All of them get SIGTERM first, and SIGKILL when they do not listen.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + grace_s
        has_members = _signal_group(running.pid, number)
        while has_members and time.monotonic() < deadline:
            time.sleep(POLL_S)
            running.poll()  # a dead leader is in its group until it is waited for
            has_members = _signal_group(running.pid, 0)
        if not has_members:
            break
    running.poll()


def _signal_group(group: int, number: int) -> bool:
    """True if the process group still had a process to get the signal."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def adopt_orphans() -> None:
    """From here on what descends from this process falls to it when its parent ends.

    bwrap ends without having waited for what it started, and with that would go what
    the kernel has counted for it (see watching.py).
    """
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(*, wait_s: float = 2.0) -> None:
    """Wait for those that fell to this process and were not started by it.

    They have been told to end before; one that does not is left alone.
    """
    deadline = time.monotonic() + wait_s
    while True:
        orphans = [pid for pid in _children() if pid not in _started]
        for pid in orphans:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if not orphans or time.monotonic() >= deadline:
            return
        time.sleep(POLL_S / 10)


def _children() -> list[int]:
    own = Path(f"/proc/self/task/{os.getpid()}/children")
    try:
        return [int(word) for word in own.read_text(encoding="ascii").split()]
    except OSError:  # a kernel without it
        return []


def dying_with_parent() -> Callable[[], None]:
    """For ``in_child``: the program gets SIGTERM when this one dies, even of SIGKILL.

    What it forks itself is not covered (prctl(2), PR_SET_PDEATHSIG).
    """
    import ctypes

    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def arrange() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel knew
            os._exit(128 + signal.SIGTERM)

    return arrange


def _working_directory() -> str | None:
    """None for this process's own; / if that was removed, or rsync would fail."""
    try:
        Path.cwd()
    except OSError:
        return "/"
    return None


def has_program(name: str) -> bool:
    """True if a program of that name can be started."""
    return find_program(name) is not None


def find_program(name: str) -> str | None:
    """The path of a program on SEARCH_PATH, or None."""
    for directory in SEARCH_PATH.split(":"):
        path = f"{directory}/{name}"
        if os.path.isfile(path) and os.access(path, os.X_OK):  # noqa: PTH113
            return path
    return None


def _not_started(program: str, error: OSError) -> ToolError:
    why, hint, status = str(error.strerror), None, 126
    if error.errno == errno.ENOENT:
        status = 127
        if Path(program).exists():
            why = "what its first line names is not there"
            hint = "a script begins with #! and the program that runs it: #!/bin/sh"
        else:
            why = "it is not installed"
            name = Path(program).name
            package = PROGRAM_PACKAGES.get(name, f"that holds {name}")
            hint = f"install the package {package}"
    elif error.errno == errno.ENOEXEC:
        hint = "a script begins with #! and the program that runs it: #!/bin/sh"
    failed = ToolError(f"cannot start {quote(program)}: {why}", hint, status=status)
    failed.retryable = error.errno in SHORTAGES
    return failed


def _close_pipes(running: subprocess.Popen[bytes]) -> None:
    for stream in (running.stdin, running.stdout, running.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
