"""Measures what a run of byteback-prune costs that has nothing to do.

Needs root, and a copy of the machine (``tests/machine``), for it makes a user. It makes
a store of real snapshots on an image, and prints the processor's seconds and the system
calls of the first run over it, of the next ones, and of one after a backup.
"""

from __future__ import annotations

import argparse
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from byteback.model.snapshot import CURRENT
from byteback.server.store import state
from byteback.server.store.layout import Store
from byteback.server.store.state import Transfer
from byteback.system.btrfs import subvolume
from tests.made_up_store import make_store

CHECKOUT = Path(__file__).resolve().parents[2]
IMAGE_BYTES = 64 << 30
PRUNE = CHECKOUT / "bin" / "byteback-prune"
STATE = Path("/var/lib/byteback")


def run(*argv: str | Path) -> str:
    """A program's output; it must end well."""
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return done.stdout + done.stderr


def make_tree(path: Path) -> None:
    """Make ``current`` as a subvolume, and each snapshot of it, read-only."""
    if path.name == CURRENT:
        run("btrfs", "subvolume", "create", path)
        return
    source = os.open(path.parent / CURRENT, os.O_RDONLY)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        subvolume.snapshot(source, directory, path.name)
        made = os.open(path, os.O_RDONLY)
        subvolume.freeze(made)
        os.close(made)
    finally:
        os.close(source)
        os.close(directory)


def make_server(place: Path, clients: int, snapshots: int) -> Store:
    """A user byteback whose home is a store on an image."""
    image, root = place / "image", place / "store"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    root.mkdir()
    run("mkfs.btrfs", "-q", image)
    run("mount", "-o", "loop,noatime,user_subvol_rm_allowed", image, root)
    run("useradd", "--home-dir", root, "--no-create-home", "byteback")
    entry = pwd.getpwnam("byteback")
    os.chown(root, entry.pw_uid, entry.pw_gid)
    os.setegid(entry.pw_gid)
    os.seteuid(entry.pw_uid)
    try:
        store = make_store(root, clients, snapshots, make_tree=make_tree)
        for client in store.hosts():
            state.write(store, client, Transfer.WHOLE)
    finally:
        os.seteuid(0)
        os.setegid(0)
    run("sync", "--file-system", root)
    return store


def measure(words: str) -> None:
    """Run it twice, as it is and traced, and print one row."""
    before = os.times()
    run("/usr/bin/python3", PRUNE, "--prune")
    after = os.times()
    user = after.children_user - before.children_user
    seconds = user + after.children_system - before.children_system
    text = run("strace", "-f", "-c", "/usr/bin/python3", PRUNE, "--prune")
    calls = re.findall(r"^100\.00 .* (\d+) +\d* *total$", text, re.MULTILINE)
    print(f"{words:30} {seconds:8.2f} {calls[0] if calls else '?':>10}", flush=True)


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=330)
    parser.add_argument("--snapshots", type=int, default=60, help="of each client")
    parser.add_argument("--profile", action="store_true", help="of a run that is idle")
    wanted = parser.parse_args()
    shutil.rmtree(STATE, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        Path(place).chmod(0o755)
        store = make_server(Path(place), wanted.clients, wanted.snapshots)
        try:
            number = wanted.clients * wanted.snapshots
            print(f"{number} snapshots of {wanted.clients} clients")
            print(f"{'run':30} {'seconds':>8} {'calls':>10}")
            measure("first, and the one after it")
            measure("idle")
            measure("idle")
            if wanted.profile:
                profiler = ["/usr/bin/python3", "-m", "cProfile", "-s", "cumtime"]
                print(run(*profiler, PRUNE, "--prune")[:6000])
            client = store.hosts()[0]
            make_tree(store.root / client / "2026-01-01T00:00+0000")
            measure("after a backup")
        finally:
            run("umount", store.root)


if __name__ == "__main__":
    main()
