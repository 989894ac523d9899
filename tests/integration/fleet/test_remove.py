"""byteback-clients remove: all of a client goes, and nothing of another one."""

from __future__ import annotations

import fcntl
import os
import pty
from functools import partial
from pathlib import Path

from byteback.server.accounting import ledger_clients
from byteback.server.fleet import notes
from byteback.server.search import indexing
from byteback.server.store import change, opening
from byteback.server.store.change import Change
from tests.integration.fleet import cut_off
from tests.integration.fleet.store import FleetStore
from tests.integration.programs import run_program
from tests.integration.sealing.store import is_sealed

TABLES = ledger_clients.TABLES


def test_all_of_it_goes(store: FleetStore) -> None:
    for host in ("www", "www.example"):
        store.enrol(host)
        for days in (20, 10, 0):
            store.snapshot(host, days)
        store.record(host)
    assert store.tick().status == 0
    assert all(map(is_sealed, store.snapshots_of("www")))
    saved = store.root / "www" / "saved-by-me"
    store.as_user("mkdir", "--parents", saved / "locked")
    (saved / "link").symlink_to(store.root / "www.example")
    (saved / "locked").chmod(0)
    store.as_user("touch", store.root / "www" / "a-file")
    shown = store.clients("remove", "--dry-run", "www").stdout
    assert f"the key {store.fingerprint('www')}" in shown
    assert "3 snapshots, from 20" in shown
    assert "'saved-by-me'" in shown
    assert len(store.snapshots_of("www")) == 3
    refused = store.clients("remove", "www", status=2)
    assert "confirmed on a terminal" in refused.stderr
    shown = store.clients("remove", "--yes", "WWW").stdout
    assert shown.startswith("removed www: 3 snapshots;")
    assert not (store.root / "www").exists()
    assert store.session("www").status == 255
    assert store.traces_of("www") == []
    # Nothing of the other one is touched.
    assert all(map(is_sealed, store.snapshots_of("www.example")))
    assert store.session("www.example").status == 0
    assert store.rows_of("www.example") == len(TABLES)
    assert "is no client" in store.clients("remove", "--yes", "www", status=10).stderr
    # The name can be given to another machine, which finds nothing of it.
    store.enrol("www", "anew")
    assert store.session("anew").status == 0
    current = store.root / "www" / "current"
    assert [path.name for path in current.iterdir()] == ["etc"]  # enrol's own


def test_subvolumes_inside_do_not_keep_it(store: FleetStore) -> None:
    """An administrator mounted nothing there, but made some, one in another."""
    for host in ("www", "other"):
        store.enrol(host)
    made = store.snapshot("other", 20)
    current = store.root / "www" / "current"
    for name in ("etc/outer", "etc/outer/deep in it", "etc/outer/deep in it/inner"):
        store.as_user("btrfs", "subvolume", "create", current / name)
    run_program(["btrfs", "subvolume", "snapshot", "-r", current, current / "roots"])
    store.clients("remove", "--yes", "www")
    assert not (store.root / "www").exists()
    assert made.exists()
    listed = run_program(["btrfs", "subvolume", "list", "-o", store.root]).stdout
    assert "www" not in listed


def test_it_asks_for_the_name(store: FleetStore) -> None:
    store.client("www")
    assert "nothing was removed" in answer(store, "www", "ww")
    assert (store.root / "www" / "current").exists()
    assert "removed www" in answer(store, "www", "www")
    assert not (store.root / "www").exists()


def test_not_while_a_session_is_under_way(store: FleetStore) -> None:
    store.enrol("www")
    assert store.session("www").status == 0
    places = store.root / ".byteback" / "sessions"
    hosts = store.root / ".byteback" / "hosts"
    store.as_user("mkdir", "--parents", hosts)
    for lock in (places / "www.0.lock", hosts / "www.lock"):
        store.as_user("touch", lock)
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            refused = store.clients("remove", "--yes", "www", status=11)
        assert "a session of 'www' is under way" in refused.stderr
        assert (store.root / "www" / "current").exists()
        assert store.session("www").status == 0
    store.clients("remove", "--yes", "www")


def test_a_client_waits_while_it_is_changed(store: FleetStore) -> None:
    """After a crash, say. Nobody gets its name meanwhile, and pruning goes on."""
    for host in ("www", "other"):
        store.enrol(host)
    number = (store.root / "www").stat().st_ino
    assert cut_off.in_child(partial(begin_removal, number)) == cut_off.DONE
    new = store.make_key("new").split()
    program = store.programs / "byteback-setup-client-receive"
    for refused in (
        store.session("www"),
        store.run([program, "Www", *new]),
        store.run([program, "--replace-key", "www", *new]),
    ):
        assert refused.status == 75, refused
        assert "is changing the client" in refused.stderr
    assert store.session("other").status == 0
    assert store.prune("--prune", as_root=False).status == 0
    assert (store.root / "www" / "current").exists()
    assert store.tick().status == 0
    assert store.traces_of("www") == []
    assert store.session("other").status == 0
    store.enrol("www", "anew")
    assert store.session("anew").status == 0


def test_a_record_of_another_directory_deletes_nothing(store: FleetStore) -> None:
    store.sealed("www", 20)
    assert cut_off.in_child(partial(begin_removal, 1)) == cut_off.DONE
    assert store.tick().status == 0
    assert all(map(is_sealed, store.snapshots_of("www")))
    assert (store.root / "www" / "current").exists()


def begin_removal(number: int) -> None:
    with opening.opened_store(writes=True) as store:
        name = change.store_name(store.root)
        change.write(Change(change.REMOVE, "www", "", number, False, name))


def test_what_is_sealed_as_anothers_stays(store: FleetStore) -> None:
    """A taken-over store's user gives a client's directory the name of another one."""
    made = store.sealed("victim", 20, 10)
    store.client("www")
    store.as_user("mv", store.root / "www", store.root / "away")
    store.as_user("mv", store.root / "victim", store.root / "www")
    (store.root / "www" / "2020-01-01T00:00+0000").symlink_to(store.root / "away")
    shown = store.clients("remove", "--yes", "www").stdout
    for snapshot in made:
        assert f"left 'www/{snapshot.name}' alone" in shown
    store.as_user("mv", store.root / "www", store.root / "victim")
    assert all(map(is_sealed, made))
    assert (store.root / "away" / "current" / "etc" / "file").exists()


def test_every_ending_of_a_note_is_known() -> None:
    """What the code keeps for each client is what a removal takes away."""
    import re

    import byteback.server

    top = Path(str(byteback.server.__file__)).parent
    found = set()
    for path in top.rglob("*.py"):
        text = path.read_text()
        found |= set(re.findall(r'with_suffix\(\s*"(\.[a-z-]+)"', text))
        for constant in re.findall(r"with_suffix\(([A-Z]+)\)", text):
            found |= set(
                re.findall(rf'^{constant} = "(\.[a-z-]+)"', text, re.MULTILINE)
            )
    known = {*notes.ENDINGS, ".lock", ".rekeyed"}
    assert found - {".new", ".pub"} <= known
    assert set(notes.ENDINGS) - set(indexing.ENDINGS) <= found


def answer(store: FleetStore, name: str, typed: str) -> str:
    """What byteback-clients says on a terminal on which ``typed`` is typed."""
    pid, terminal = pty.fork()
    if pid == 0:
        program = str(store.programs / "byteback-clients")
        os.execv(program, [program, "remove", name])  # noqa: S606 # ours
    said = b""
    while b"go on" not in said:
        said += os.read(terminal, 1000)
    os.write(terminal, f"{typed}\n".encode())
    try:
        while more := os.read(terminal, 1000):
            said += more
    except OSError:  # the end of a terminal
        pass
    os.waitpid(pid, 0)
    os.close(terminal)
    return said.decode()
