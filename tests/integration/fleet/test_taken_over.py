"""The store's user was taken over: what he leaves for root's changes to trip on."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.integration.fleet.store import FleetStore
from tests.integration.sealing.store import become, is_sealed, mark_of

ROOTS = Path("/etc/of-root")


def test_traps_among_the_notes(store: FleetStore) -> None:
    """Links where root reads and writes, to what is root's, in every change."""
    for host in ("www", "other"):
        store.enrol(host)
        store.snapshot(host, 10)
    assert store.tick().status == 0
    ROOTS.write_text("0 0\n")
    ROOTS.chmod(0o600)
    before = ROOTS.stat()
    state = store.root / ".byteback"
    notes = state / "hosts"
    endings = ("state", "machine", "journal", "journal-new", "names", "log")
    for host in ("www", "new"):
        for ending in endings:
            store.as_user("ln", "-sfn", ROOTS, notes / f"{host}.{ending}")
    with contextlib.suppress(FileNotFoundError):
        store.ledger.unlink()
    store.as_user("ln", "-sfn", ROOTS, store.ledger)
    store.as_user("ln", "-s", ROOTS, notes / "www.retired")
    assert "Permission denied" in store.clients("retire", "www", status=1).stderr
    (notes / "www.retired").unlink()
    for words in (
        ("retire", "--keep", "9", "www"),
        ("retire", "--undo", "www"),
        ("rename", "www", "new"),
        ("key", "--revoke", "new"),
        ("remove", "--yes", "new"),
    ):
        store.clients(*words)
    found = ROOTS.stat()
    assert ROOTS.read_text() == "0 0\n"
    assert (found.st_uid, found.st_mode, found.st_ctime_ns, found.st_nlink) == (
        *(before.st_uid, before.st_mode, before.st_ctime_ns),
        1,
    )
    for path in (state / "sessions" / "other.0.lock", notes / "other.lock"):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        store.as_user("mkdir", "-p", path.parent)
        store.as_user("ln", "-s", ROOTS, path)
        refused = store.run(
            [store.programs / "byteback-clients", "rename", "other", "x"]
        )
        assert refused.status == 1, refused
        path.unlink()
    assert ROOTS.read_text() == "0 0\n"
    store.ledger.unlink()
    store.clients("rename", "other", "x")
    assert all(map(is_sealed, store.snapshots_of("x")))
    ROOTS.unlink()


def test_a_file_of_keys_without_an_end(store: FleetStore) -> None:
    """Root's programs read it: they take no more memory than a real one needs."""
    store.enrol("www")
    path = store.root / ".ssh" / "authorized_keys"
    text = path.read_text()
    with become(store.user):
        os.truncate(path, 1 << 40)
    refused = store.clients("list", status=1)
    assert "is too large" in refused.stderr
    assert store.tick().status == 0
    path.write_text(text)
    assert "www" in store.clients("list").stdout


def test_directories_are_exchanged_under_root(store: FleetStore) -> None:
    """One client is removed, and one renamed, while names go round and round."""
    for host in ("www", "old", "victim"):
        store.enrol(host)
        for days in (40, 30, 20, 10):
            store.snapshot(host, days)
    assert store.tick().status == 0
    theirs = {mark_of(path) for path in store.snapshots_of("victim")}
    assert len(theirs) == 4
    with exchanging(store, "www", "victim"):
        for _ in range(4):
            store.run([store.programs / "byteback-clients", "remove", "--yes", "www"])
    assert marks(store, "victim") == theirs
    with exchanging(store, "old", "victim"):
        for _ in range(2):
            for words in (("old", "new"), ("new", "old")):
                store.run([store.programs / "byteback-clients", "rename", *words])
    assert marks(store, "victim") == theirs


def marks(store: FleetStore, host: str) -> set[str | None]:
    """The seals of a client, wherever its snapshots are now."""
    found = {mark_of(path) for path in store.root.glob("*/2*")}
    return {mark for mark in found if mark and mark.partition("/")[0] == host}


@contextlib.contextmanager
def exchanging(store: FleetStore, one: str, other: str) -> Iterator[None]:
    """The store's user moves two clients' directories, each to the other's name."""
    loop = (
        # Told to end, it waits for its mv: nothing moves any more then.
        f"trap exit TERM; cd {store.root}; while :; do "
        f"mv -nT {one} .a; mv -nT {other} {one}; sleep 0.03; "
        f"mv -nT {one} {other}; mv -nT .a {one}; sleep 0.03; done"
    )
    running = subprocess.Popen(
        [
            *("setpriv", f"--reuid={store.user.uid}", f"--regid={store.user.gid}"),
            *("--clear-groups", "sh", "-c", loop),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        running.terminate()
        running.wait()
        with become(store.user), contextlib.suppress(OSError):
            (store.root / ".a").rename(store.root / one)
