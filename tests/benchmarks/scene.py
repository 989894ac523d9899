"""Where the contestants meet: a server and a client on one throw-away machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.cost import Group, Sides, make_sides

CHECKOUT = Path(__file__).resolve().parents[2]
LIBRARY = Path("/usr/local/lib/byteback")
PORT = 2222
SERVER, CLIENT = "server.bench", "client.bench"  # as ssh's configuration has them
HOST = "bench.example"
STORE, BENCH = Path("/srv/byteback"), Path("/bench")
STORE_SIZE, BENCH_SIZE = 24 << 30, 12 << 30  # bytes, of which few are ever written
SUBVOLUME_INODE = 256  # of the top of every subvolume
INTERPRETER = "/usr/bin/python3"


@dataclass(frozen=True)
class Scene:
    """A server with a store, and this machine enrolled as its client."""

    store: Path
    peers: Path  # where the others write, on the same volume
    bench: Path  # what is backed up, on another one
    bin: Path
    sides: Sides

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        side: Group | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Run a command that must succeed, at the client unless ``side`` says else."""
        subprocess.run(
            (side or self.sides.client).wrap(argv),
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )

    def shell(self, script: str) -> None:
        """Run a pipeline at the client, of which every part must succeed."""
        self.run(["bash", "-o", "pipefail", "-c", script])

    def forget_snapshot_interval(self) -> None:
        """Make the last snapshot old, so that the next backup is due one too.

        In the ledger as well, where pruning looks for what it has not counted yet.
        """
        for host in self.store.glob("*/current"):
            for number, path in enumerate(sorted(host.parent.glob("20*T*"))):
                old = path.with_name(
                    f"2020-01-01T{number // 60:02d}:{number % 60:02d}+0000"
                )
                if path != old and not old.exists():
                    path.rename(old)
                    self._rename_in_ledger(path.name, old.name)

    def _rename_in_ledger(self, name: str, new: str) -> None:
        place = self.store / ".byteback" / "ledger.sqlite"
        with contextlib.closing(sqlite3.connect(place)) as ledger, ledger:
            words = "UPDATE snapshot SET name = ? WHERE name = ?"
            ledger.execute(words, (new, name))


@contextlib.contextmanager
def built() -> Iterator[Scene]:
    """The scene, made with the real programs."""
    if os.environ.get("BYTEBACK_TEST_MACHINE") != "1":
        raise SystemExit("run this by tests/benchmarks/run: it changes the machine")
    os.environ["HOME"] = "/root"
    for directory in ("/etc/byteback", "/root/.ssh", "/var/lib/byteback"):
        shutil.rmtree(directory, ignore_errors=True)
    Path("/root/.ssh").mkdir(mode=0o700)
    bin_ = _install()
    key = Path("/root/.ssh/id_ed25519")
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    shutil.copy(key.with_suffix(".pub"), "/root/.ssh/authorized_keys")
    sides = make_sides(STORE)
    with contextlib.ExitStack() as stack:
        stack.callback(sides.client.remove)
        stack.callback(sides.server.remove)
        stack.enter_context(_sshd(PORT, SERVER, sides.server))
        stack.enter_context(_sshd(PORT + 1, CLIENT, sides.client))
        _run(
            *(bin_ / "byteback-setup-server", "--image", "/var/tmp/bench.img"),
            *("--size", str(STORE_SIZE), "--mount-point", STORE, "--no-schedule"),
            *("--admin-key", key.with_suffix(".pub")),
        )
        destination = f"ssh://byteback@127.0.0.1:{PORT}/"
        _run(
            *(bin_ / "byteback-setup-client", "--destination", destination),
            *("--hostname", HOST, "--accept-new-host-key", "--no-schedule"),
        )
        _mount_bench()
        yield Scene(STORE, STORE / ".byteback/peers", BENCH, bin_, sides)


def make_subvolume(path: Path) -> None:
    """An empty subvolume; btrfs send takes nothing else."""
    _run("btrfs", "-q", "subvolume", "create", path)


def remove_tree(*paths: Path) -> None:
    """Remove directories and subvolumes, those below them included."""
    for path in paths:
        if not path.exists():
            continue
        if path.stat().st_ino == SUBVOLUME_INODE:
            _run("btrfs", "-q", "subvolume", "delete", path)
            continue
        if path.is_dir():
            below = [entry for entry in path.iterdir() if entry.is_dir()]
            remove_tree(*(p for p in below if p.stat().st_ino == SUBVOLUME_INODE))
            shutil.rmtree(path)
        else:
            path.unlink()


def settle(there: Scene) -> None:
    """Wait until the room of what was deleted has come back."""
    for volume in (there.store, there.bench):
        _run("btrfs", "subvolume", "sync", volume)
        _run("sync", "--file-system", volume)


def ping_lines(there: Scene) -> list[str]:
    """The forced command's cost beyond Python itself, without the ssh."""
    environment = {
        "SSH_ORIGINAL_COMMAND": "byteback-receive --ping --json",
        "SSH_CONNECTION": "127.0.0.1 1 127.0.0.1 2",
        "PATH": "/usr/bin:/bin",
    }
    ping: list[str | Path] = [there.bin / "byteback-receive", "--host", HOST]
    bare, whole = [], []
    for _ in range(15):
        bare.append(_timed([INTERPRETER, "-c", "pass"], environment))
        whole.append(_timed(ping, environment))
    extra = (statistics.median(whole) - statistics.median(bare)) * 1000
    bare_ms = statistics.median(bare) * 1000
    return [f"forced command, ping: {extra:.0f} ms over bare Python ({bare_ms:.0f} ms)"]


def _timed(argv: Sequence[str | Path], environment: dict[str, str]) -> float:
    started = time.monotonic()
    as_user = ["setpriv", "--reuid=byteback", "--regid=byteback", "--clear-groups"]
    subprocess.run([*as_user, *argv], env=environment, check=True, capture_output=True)
    return time.monotonic() - started


def _install() -> Path:
    leave_out = shutil.ignore_patterns("__pycache__")
    shutil.rmtree(LIBRARY, ignore_errors=True)
    for part in ("bin", "byteback"):
        shutil.copytree(CHECKOUT / part, LIBRARY / part, ignore=leave_out)
    _run("chmod", "-R", "a+rX", LIBRARY)
    _run(INTERPRETER, "-m", "compileall", "-q", LIBRARY / "byteback")
    for launcher in (LIBRARY / "bin").glob("byteback-*"):
        link = Path("/usr/local/bin") / launcher.name
        link.unlink(missing_ok=True)
        link.symlink_to(launcher)
    return Path("/usr/local/bin")


@contextlib.contextmanager
def _sshd(port: int, name: str, side: Group) -> Iterator[None]:
    """An sshd as one of the sides, and a name by which every ssh finds it."""
    directory = Path("/run/sshd")
    directory.mkdir(mode=0o755, exist_ok=True)
    key = Path(f"/run/{name}_key")
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    configuration = Path(f"/run/{name}_sshd_config")
    configuration.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {key}\nUsePAM no\n"
        "PidFile none\nMaxStartups 100\nPermitRootLogin yes\n"
        "Subsystem sftp internal-sftp\n"
    )
    with Path("/root/.ssh/config").open("a") as file:
        file.write(
            f"Host {name}\n  HostName 127.0.0.1\n  Port {port}\n  User root\n"
            "  StrictHostKeyChecking no\n  LogLevel ERROR\n"
        )
    server = subprocess.Popen(side.wrap(["/usr/sbin/sshd", "-D", "-f", configuration]))
    try:
        time.sleep(0.5)
        yield
    finally:
        server.terminate()
        server.wait()


def _mount_bench() -> None:
    """A volume of its own for the client's files: btrfs send needs one."""
    image = Path("/var/tmp/bench-client.img")
    with image.open("wb") as file:
        file.truncate(BENCH_SIZE)
    _run("mkfs.btrfs", "-q", image)
    BENCH.mkdir()
    _run("mount", "-o", "loop,noatime", image, BENCH)


def _run(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True)
