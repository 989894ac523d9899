"""Cut off anywhere, a round is gone on with; and a taken-over rsync gets nowhere."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from tests.integration.programs import run_program
from tests.integration.replicate.trees import differences
from tests.integration.replicate.world import SECOND_UID, SOURCE, First, Second
from tests.integration.source_tree import MIB
from tests.waiting import PATIENCE_S, wait_until

Servers = tuple[First, Second]
CHUNK = 1 << 16

# In the place of the second server's rsync: it does whatever the first one likes.
_TAKEN_OVER = """\
#!/usr/bin/python3 -IS
import json, os, sys
words = sys.argv[1:]
if "sys.stderr.write" in " ".join(words):
    sys.stderr.write("first rsync --server --sender -lHogDtpAXre.iLsfxCIvu . ./\\n")
    sys.exit(12)
if "-e" not in words:
    sys.exit(0)
def read(path):
    return open(path, "rb").read(9) and None
def write(path):
    open(path, "w").write("x")
def run(path):
    pid = os.fork()
    if pid == 0:
        try:
            os.execv(path, [path])
        finally:
            os._exit(99)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (99, 126):
        raise OSError("not run")
def connect(_):
    import ctypes
    if ctypes.CDLL(None).socket(2, 1, 0) < 0:
        raise OSError("no socket")
def listing(path):
    if not os.listdir(path):
        raise OSError("empty")
root = {root!r}
tries = [
    ("other", read, root + "/victim/current/etc/day"),
    ("sealed", write, root + "/victim/current/etc/day"),
    ("state", listing, root + "/.byteback"),
    ("keys", read, root + "/.ssh/authorized_keys"),
    ("key", read, "/etc/byteback/replicate/127.0.0.1/key"),
    ("passwd", read, "/etc/passwd"),
    ("tmp", write, "/tmp/taken-over"),
    ("shell", run, "/usr/bin/id"),
    ("network", connect, ""),
    ("processes", listing, "/proc"),
]
done = []
for name, act, path in tries:
    try:
        act(path)
        done.append(name)
    except BaseException:
        pass
target = "./" if os.path.isdir("etc") or os.getcwd() == "/backup" else {place!r} + "/"
open(target + "done", "w").write(json.dumps(done))
"""


def processes(named: str) -> Iterator[psutil.Process]:
    """The second server's processes of that name."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = " ".join(process.cmdline()[:4])
            if process.uids().real == SECOND_UID and named in words:
                yield process


def has_process(named: str) -> bool:
    return next(processes(named), None) is not None


def end_processes(named: str, number: int) -> None:
    """Send a signal to the second server's processes of that name."""
    for process in processes(named):
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def kill_under_way(argv: list[str | Path], victim: str, pause_s: float) -> None:
    """Run a command, and kill a process of it so long after that has appeared."""
    running = subprocess.Popen(list(map(str, argv)), stderr=subprocess.PIPE)
    wait_until(lambda: has_process(victim) or running.poll() is not None)
    time.sleep(pause_s)
    end_processes(victim, 9)
    running.communicate(timeout=PATIENCE_S)


@contextlib.contextmanager
def standing_still(port: int, after: int) -> Iterator[int]:
    """A port whose line to ``port`` stands still when ``after`` bytes have come back.

    It is for one connection, and ends with the block.
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(("127.0.0.1", port)) as there,
        ThreadPoolExecutor() as pool,
    ):
        accepted: list[socket.socket] = []

        def carry(source: socket.socket, target: socket.socket, most: float) -> None:
            with contextlib.suppress(OSError):
                while most > 0 and (data := source.recv(CHUNK)):
                    target.sendall(data)
                    most -= len(data)

        def serve() -> None:
            here = listener.accept()[0]
            accepted.append(here)
            pool.submit(carry, here, there, math.inf)
            carry(there, here, after)

        pool.submit(serve)
        try:
            yield listener.getsockname()[1]
        finally:
            for one in (*accepted, there, listener):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()


def test_a_round_is_killed_again_and_again(servers: Servers, tmp_path: Path) -> None:
    """At random, by its own end, by ssh's or by rsync's; in the end all is there."""
    first, second = servers
    source = tmp_path / "source"
    source.mkdir()
    for number in range(100):
        (source / f"file-{number}").write_text(str(number))
    names = []
    for day in (9, 8):
        (source / "large").write_bytes(os.urandom(8 * MIB))
        (source / f"file-{day}").unlink()
        first.fill("cut", source)
        names.append(first.snapshot("cut", day))
    dice = random.Random(20261129)  # noqa: S311 # no secret
    argv = second.inside(first.programs / "byteback-replicate", "--all", "cut")
    for victim in ("byteback-replicate", "ssh", "rsync"):
        kill_under_way(argv, victim, dice.uniform(0, 1.0))
        # Nothing is there that is not whole.
        for name in second.snapshots("cut"):
            here, there = second.root / "cut" / name, first.root / "cut" / name
            assert differences(there, here) == []
    second.replicate("cut")
    assert second.snapshots("cut") == names
    for name in names:
        here, there = second.root / "cut" / name, first.root / "cut" / name
        assert differences(there, here) == []


def test_a_signal_ends_a_round_at_once(servers: Servers, tmp_path: Path) -> None:
    """And what has arrived is used by the next one."""
    first, second = servers
    source = tmp_path / "source"
    source.mkdir()
    (source / "large").write_bytes(os.urandom(16 * MIB))
    first.fill("signal", source)
    first.snapshot("signal", 3)
    program = first.programs / "byteback-replicate"
    argv = list(map(str, second.inside(program, "--all", "signal")))
    where = second.directory / "from"
    before = where.read_text()
    with standing_still(first.sshd.port, 8 * MIB) as port:
        where.write_text(before.replace(str(first.sshd.port), str(port)))
        running = subprocess.Popen(argv, stderr=subprocess.PIPE)
        arriving = second.root / "signal" / "current" / "large"
        wait_until(lambda: arriving.exists() and arriving.stat().st_blocks > 0)
        end_processes(f"/{program.name}", signal.SIGTERM)
        running.communicate(timeout=PATIENCE_S)
    where.write_text(before)
    assert running.returncode != 0
    assert second.snapshots("signal") == []
    second.replicate("signal")
    assert len(second.snapshots("signal")) == 1


def test_a_note_without_a_place(servers: Servers) -> None:
    """A run was killed between the two: neither that client nor another waits."""
    first, second = servers
    names = first.history("halfway", 3)
    note = json.dumps({"from": SOURCE, "since": 0, "tokens": {}})
    place = second.root / ".byteback" / "hosts" / "halfway.replica"
    second.as_user("sh", "-c", f"mkdir -p {place.parent} && echo '{note}' > {place}")
    second.replicate("--verify", "halfway")
    second.replicate("halfway")
    assert second.snapshots("halfway") == names


def test_an_rsync_that_was_taken_over(servers: Servers) -> None:
    """It can spoil its own client's current, and reach nothing else."""
    first, second = servers
    first.history("victim", 5)
    second.replicate("victim")
    first.history("bad", 5)
    place = Path("/srv/control")
    place.mkdir()
    place.chmod(0o777)
    script = place / "rsync"
    script.write_text(_TAKEN_OVER.format(root=str(second.root), place=str(place)))
    script.chmod(0o755)
    second.run("mount", "--bind", script, "/usr/bin/rsync")
    try:
        # The control: what it can do where nothing holds it.
        second.as_user("sh", "-c", f"cd {place} && /usr/bin/rsync -e x")
        control = json.loads((place / "done").read_text())
        assert set(control) >= {"other", "sealed", "state", "keys", "key", "passwd"}
        assert set(control) >= {"tmp", "shell", "network", "processes"}
        second.replicate("bad")
    finally:
        second.run("umount", "/usr/bin/rsync")
        run_program(["rm", "-rf", place, "/tmp/taken-over"])
    done = second.root / "bad" / "current" / "done"
    assert json.loads(done.read_text()) == []
