"""Where the contestants meet: a server and a client on one throw-away machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
LIBRARY = Path("/usr/local/lib/byteback")
PORT = 2222
INTERPRETER = "/usr/bin/python3"


@dataclass(frozen=True)
class Scene:
    """A server with a store, and this machine enrolled as its client."""

    store: Path
    raw: Path  # where plain rsync writes, on the same volume
    bin: Path
    key: Path

    @property
    def rsync(self) -> list[str]:
        """Plain rsync as the table's measure."""
        ssh = f"ssh -p {PORT} -o StrictHostKeyChecking=no -o LogLevel=ERROR"
        flags = ["-a", "--numeric-ids", "--inplace", "--relative"]
        return ["rsync", *flags, f"--rsh={ssh}"]

    def run(self, argv: Sequence[str]) -> str:
        """Run a command that must succeed; its standard output."""
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
        return done.stdout

    def forget_snapshot_interval(self) -> None:
        """Make the last snapshot old, so that the next backup is due one too."""
        for host in self.store.glob("*/current"):
            for number, path in enumerate(sorted(host.parent.glob("20*T*"))):
                old = path.with_name(
                    f"2020-01-01T{number // 60:02d}:{number % 60:02d}+0000"
                )
                if path != old and not old.exists():
                    path.rename(old)


@contextlib.contextmanager
def built() -> Iterator[Scene]:
    """The scene, made with the real programs."""
    if os.environ.get("BYTEBACK_TEST_MACHINE") != "1":
        raise SystemExit("run this by tests/benchmarks/run: it changes the machine")
    os.environ["HOME"] = "/root"
    shutil.rmtree("/etc/byteback", ignore_errors=True)
    shutil.rmtree("/root/.ssh", ignore_errors=True)
    Path("/root/.ssh").mkdir(mode=0o700)
    bin_ = _install()
    key = Path("/root/.ssh/id_ed25519")
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    shutil.copy(key.with_suffix(".pub"), "/root/.ssh/authorized_keys")
    server = _start_sshd()
    try:
        _run(
            *(bin_ / "byteback-setup-server", "--image", "/var/tmp/bench.img"),
            *("--size", "24G", "--mount-point", "/srv/byteback", "--no-schedule"),
            *("--admin-key", key.with_suffix(".pub")),
        )
        destination = f"ssh://byteback@127.0.0.1:{PORT}/"
        _run(
            *(bin_ / "byteback-setup-client", "--destination", destination),
            *("--hostname", "bench.example", "--accept-new-host-key"),
        )
        raw = Path("/srv/byteback/.byteback/raw")
        raw.mkdir()
        yield Scene(Path("/srv/byteback"), raw, bin_, key)
    finally:
        server.terminate()
        server.wait()


def used_bytes(store: Path) -> int:
    """Bytes in use on the store's volume, after a sync."""
    _run("sync", "--file-system", store)
    status = os.statvfs(store)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def wire_bytes() -> int:
    """Bytes that the loopback interface of this network namespace has sent."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            return int(numbers.split()[8])
    raise LookupError("lo")


def cpu_seconds() -> float:
    """Seconds of CPU that this whole machine has spent."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    busy = sum(int(fields[index]) for index in (1, 2, 3, 6, 7))
    return busy / os.sysconf("SC_CLK_TCK")


def ping_lines(there: Scene) -> list[str]:
    """What the forced command costs beyond Python itself, without the ssh."""
    environment = {
        "SSH_ORIGINAL_COMMAND": "byteback-receive --ping --json",
        "SSH_CONNECTION": "127.0.0.1 1 127.0.0.1 2",
        "PATH": "/usr/bin:/bin",
    }
    ping: list[str | Path] = [there.bin / "byteback-receive", "--host", "bench.example"]
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


def _start_sshd() -> subprocess.Popen[bytes]:
    directory = Path("/run/sshd")
    directory.mkdir(mode=0o755, exist_ok=True)
    key = Path("/run/bench_host_key")
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    configuration = Path("/run/bench_sshd_config")
    configuration.write_text(
        f"Port {PORT}\nListenAddress 127.0.0.1\nHostKey {key}\nUsePAM no\n"
        "PidFile none\nMaxStartups 100\nPermitRootLogin yes\n"
    )
    server = subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", configuration])
    time.sleep(0.5)
    return server


def _run(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, capture_output=True)
