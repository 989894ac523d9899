"""Many clients at once on one server: all are to be done in the end.

Needs root, and a copy of the machine (``tests/machine``). Each client has a key of its
own. All begin in the same moment, with sessions as a client's: a ping, a push by rsync,
and the word that it is complete. One that hears "busy" comes again after the pauses of
the product's own retry policy, made shorter. Printed are how long clients took from the
common beginning to their end, and the processes and memory of the server's user.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pwd
import random
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from byteback.client.transport.retry import RetryPolicy
from tests.benchmarks import scene
from tests.integration.counting import memory_of

KEYS = Path("/root/load")
MIB = 1 << 20
RSYNC = (
    "rsync --archive --acls --xattrs --hard-links --numeric-ids --inplace --relative"
    " --delete-during --timeout=600"
)


@dataclass
class Client:
    """One key, and what became of its backup."""

    name: str
    busy: int = 0
    took_s: float = 0.0
    failure: str = ""

    @property
    def ssh(self) -> str:
        """The ssh that its sessions use."""
        return (
            f"ssh -i {KEYS}/{self.name} -p {scene.PORT} -o IdentitiesOnly=yes"
            " -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
            " -o LogLevel=ERROR -o IdentityAgent=none"
        )


def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    """A program's end and output."""
    return subprocess.run(argv, check=False, capture_output=True, text=True)


def enrol(store: Path, number: int) -> list[Client]:
    """Make clients as enrolment does: a key's line, a directory, its current."""
    KEYS.mkdir(mode=0o700, exist_ok=True)
    clients = [Client(f"load{at:03}.example") for at in range(number)]
    entry = pwd.getpwnam("byteback")
    lines = []
    for client in clients:
        key = KEYS / client.name
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
        command = f"/usr/local/bin/byteback-receive --host {client.name}"
        public = key.with_suffix(f"{key.suffix}.pub").read_text().strip()
        lines.append(f'restrict,command="{command}" {public}\n')
        directory = store / client.name
        directory.mkdir()
        run("btrfs", "-q", "subvolume", "create", directory / "current")
        for path in (directory, directory / "current"):
            os.chown(path, entry.pw_uid, entry.pw_gid)
    with (store / ".ssh" / "authorized_keys").open("a") as file:
        file.writelines(lines)
    return clients


def back_up(client: Client, tree: Path, policy: RetryPolicy, began: float) -> None:
    """All sessions of one backup, again and again while the server is busy."""
    address = "byteback@127.0.0.1"
    push = [*RSYNC.split(), "--rsync-path=rsync --fake-super", "-e", client.ssh]
    for attempt in range(1, policy.number + 1):
        done = run(*client.ssh.split(), address, "byteback-receive --ping")
        if done.returncode == 0:
            done = run(*push, str(tree), f"{address}:")
        if done.returncode == 0:
            done = run(*client.ssh.split(), address, "byteback-receive --complete")
        if done.returncode == 0:
            client.took_s = time.monotonic() - began
            return
        client.failure = done.stderr.strip()[-300:]
        if "busy" not in done.stderr and "closed" not in done.stderr:
            return
        client.busy += 1
        time.sleep(policy.pause_s(min(attempt, 4)))


class Watch(threading.Thread):
    """Looks once a second at the memory and the rsyncs of the server's user."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.uid = pwd.getpwnam("byteback").pw_uid
        self.memory = self.processes = 0
        self.ends = False

    def run(self) -> None:
        """Look until it is told to end."""
        while not self.ends:
            pids = set()
            for entry in Path("/proc").iterdir():
                with contextlib.suppress(OSError):
                    if entry.name.isdigit() and entry.stat().st_uid == self.uid:
                        pids.add(int(entry.name))
            self.processes = max(self.processes, len(pids))
            self.memory = max(self.memory, memory_of(pids))
            time.sleep(1)


def make_tree(files: int) -> Path:
    """A tree that each client sends."""
    tree = Path("/root/load-tree")
    tree.mkdir()
    chance = random.Random(1)
    for number in range(files):
        (tree / f"file{number}").write_bytes(chance.randbytes(40_000))
    return tree


def describe(clients: list[Client], watch: Watch, store: Path) -> list[str]:
    """The figures."""
    took = sorted(client.took_s for client in clients if client.took_s)
    failed = [client for client in clients if not client.took_s]
    half = statistics.median(took) if took else 0.0
    shown = json.loads(run("byteback-status", "--json").stdout)["clients"]
    good = sum(one["newest_good"] is not None for one in shown)
    made = sum(1 for one in clients if list((store / one.name).glob("20*")))
    why = failed[0].failure if failed else ""
    first, last = took[0], took[-1]
    return [
        f"done {len(took)} of {len(clients)}; failed: {len(failed)} {why}",
        f"took (s): first {first:.0f}, half {half:.0f}, last {last:.0f}",
        f"the last took {last / half:.1f} times the median",
        f"answers of 'busy': {sum(client.busy for client in clients)}",
        f"processes of the server's user, at most: {watch.processes}",
        f"their memory, at most: {watch.memory / MIB:.0f} MiB",
        f"snapshots of {made} clients; byteback-status knows a good backup of {good}",
    ]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--places", type=int, default=20)
    parser.add_argument("--pause", type=float, default=10.0, help="s, after a 'busy'")
    wanted = parser.parse_args()
    random.seed(1)
    with scene.built() as there:
        settings = Path("/etc/byteback/server.toml")
        settings.write_text(
            f"{settings.read_text() if settings.exists() else ''}\n"
            f"max_transfers = {wanted.places}\n"
        )
        clients = enrol(there.store, wanted.clients)
        tree = make_tree(wanted.files)
        watch = Watch()
        watch.start()
        policy = RetryPolicy(number=1000, delay_s=wanted.pause)
        began = time.monotonic()
        with ThreadPoolExecutor(len(clients)) as pool:
            for client in clients:
                pool.submit(back_up, client, tree, policy, began)
        watch.ends = True
        watch.join()
        print(*describe(clients, watch, there.store), sep="\n")


if __name__ == "__main__":
    main()
