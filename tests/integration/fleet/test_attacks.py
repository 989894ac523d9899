"""The holder of a client's key is in the way of a change, or profits by it."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from byteback.server.fleet import notes
from byteback.server.store import change
from tests.integration.fleet.store import FleetStore
from tests.integration.programs import run_program
from tests.integration.sealing.store import become, is_sealed

LONG = "x" * 250


@pytest.mark.parametrize("way", ["rename", "remove"])
def test_a_freed_name_is_not_open_to_who_had_it(store: FleetStore, way: str) -> None:
    """A connection is held while the name goes to another machine."""
    store.enrol("www")
    with store.held_connection("www") as held:
        assert store.run([*held, "byteback-receive --list /etc/file"]).status == 0
        words = (
            ("rename", "www", "old") if way == "rename" else ("remove", "--yes", "www")
        )
        store.clients(*words)
        store.enrol("www", "victim")
        with become(store.user):
            (store.root / "www" / "current" / "secret").write_text("of another one")
        for asked in ("--list /secret", "--complete", "--ping --json"):
            refused = store.run([*held, f"byteback-receive {asked}"])
            assert refused.status == 75, refused
            assert "secret" not in refused.stdout
        assert store.session("victim").status == 0
        assert store.snapshots_of("www") == []
    # On a new connection it is what it was called, or nothing.
    fresh = store.session("www", "byteback-receive --list /secret")
    assert "of another" not in fresh.stdout
    assert fresh.status == (255 if way == "remove" else 0)


def test_a_transfer_under_way_is_in_the_way(store: FleetStore) -> None:
    """Of the client's own alone, and not for longer than its key is let in."""
    store.enrol("www")
    store.enrol("other")
    with store.silent_push("www") as ours, store.silent_push("other") as other:
        for words in (("rename", "www", "new"), ("remove", "--yes", "www")):
            refused = store.clients(*words, status=11)
            assert "a session of 'www' is under way" in refused.stderr
        refused = store.clients("retire", "www", status=11)
        assert not change.PATH.exists()
        assert ours.poll() is None
        assert (store.root / "www" / "current").is_dir()
        store.clients("key", "--revoke", "www")
        store.clients("remove", "--yes", "www")
        assert not (store.root / "www").exists()
        assert other.poll() is None


def test_traps_in_current(store: FleetStore) -> None:
    """Modes, links and names of a client's choice, on what is and is no subvolume."""
    for host in ("www", LONG):
        store.enrol(host)
        current = store.root / host / "current"
        with become(store.user):
            for name in ("-rf", "--", "a\nb", "*"):
                (current / name).mkdir()
                (current / name / "link").symlink_to(store.root / "other")
                (current / name / "up").symlink_to("../../..")
            os.mkfifo(current / "fifo")
            (current / "*").chmod(0)
            current.chmod(0)
    store.enrol("other")
    store.snapshot("other", 10)
    assert store.tick().status == 0
    # As the old tool's directories could be: a plain one.
    store.as_user("mkdir", "-p", store.root / "plain" / "current" / "closed" / "deep")
    (store.root / "plain" / "current" / "link").symlink_to(store.root / "other")
    (store.root / "plain" / "current" / "closed").chmod(0)
    longer = "y" * 251
    store.clients("rename", LONG, longer)
    store.clients("rename", "www", LONG)
    for host in (longer, LONG, "plain"):
        store.clients("remove", "--yes", host)
        assert not (store.root / host).exists()
    assert all(map(is_sealed, store.snapshots_of("other")))
    assert (store.root / "other" / "current" / "etc" / "file").exists()
    assert store.session("other").status == 0


def test_clients_come_and_enrol_in_the_middle(store: FleetStore) -> None:
    """Pushes, snapshots and enrolments of both names while a client is renamed.

    The enrolments win a name or lose it; no history is ever in two places, or in none.
    """
    names = ["one", "two"]
    store.enrol("one")
    store.enrol("other")
    made = [store.snapshot("one", days).name for days in (20, 10)]
    assert store.tick().status == 0
    (store.root / "one" / "mark-of-history").touch()
    for key in ("thief1", "thief2"):
        store.make_key(key)
    with crowd(store):
        for _ in range(6):
            old, new = names
            outcome = store.run(
                [store.programs / "byteback-clients", "rename", old, new]
            )
            assert outcome.status in (0, 9, 11), outcome
            if outcome.status == 0:
                names.reverse()
            elif outcome.status == 9:  # a thief has the name: free it
                store.run([store.programs / "byteback-clients", "key", "--revoke", new])
                store.run([store.programs / "byteback-clients", "remove", "--yes", new])
    here = names[0]
    assert (store.root / here / "mark-of-history").exists()
    assert [path.name for path in store.snapshots_of(here)][:2] == made
    assert all(is_sealed(store.root / here / name) for name in made)
    assert not change.PATH.exists()
    # The client's own key, and no other one, opens its history.
    pinged = store.session("one", "byteback-receive --ping --json")
    assert f'"host": "{here}"' in pinged.stdout, pinged
    lines = (store.root / ".ssh" / "authorized_keys").read_text().splitlines()
    ours = [line for line in lines if f'--host {here}"' in line]
    assert len(ours) == 1
    assert store.session("other").status == 0


@contextlib.contextmanager
def crowd(store: FleetStore) -> Iterator[None]:
    """Processes that do all that at once, again and again."""
    ssh = " ".join(map(str, store.ssh("one")))
    enrol = store.programs / "byteback-setup-client-receive"
    loops = [
        f"{ssh} byteback-receive --ping",
        f"{ssh} byteback-receive --complete",
        *(
            f"{enrol} {name} $(cat {store.keys}/thief{number}.pub)"
            for number, name in ((1, "one"), (2, "two"))
        ),
    ]
    random.shuffle(loops)
    running = [
        subprocess.Popen(
            ["sh", "-c", f"while :; do {loop} >/dev/null 2>&1; sleep 0.1; done"],
            start_new_session=True,
        )
        for loop in loops
    ]
    try:
        yield
    finally:
        for process in running:
            os.killpg(process.pid, 9)
            process.wait()


def test_what_is_no_file_makes_root_wait_for_nothing(store: FleetStore) -> None:
    """The store's user has put fifos in the places of all notes, locks and more."""
    store.enrol("www")
    store.snapshot("www", 20)
    store.record("www")
    assert store.session("www").status == 0
    assert store.tick().status == 0
    state = store.root / ".byteback"
    names = [f"www{ending}" for ending in (*notes.ENDINGS, ".lock", ".rekeyed")]
    planted = [state / "hosts" / name for name in names]
    planted += [path for path in state.rglob("*") if path.is_file()]
    with become(store.user):
        for path in planted:
            path.unlink(missing_ok=True)
            os.mkfifo(path)
    programs = store.programs
    commands: list[list[str | Path]] = [
        [programs / "byteback-clients", "list"],
        [programs / "byteback-status"],
        [programs / "byteback-restore", "--host", "www", "/etc"],
        [programs / "byteback-prune", "--prune"],
        [programs / "byteback-clients", "retire", "--undo", "www"],
        [programs / "byteback-clients", "remove", "--yes", "www"],
    ]
    for argv in commands:
        done = run_program(argv, check=False)
        assert done.status not in (70, 128 + 15), done
    assert not (store.root / "www").exists()


def test_a_fifo_for_a_note_does_not_let_a_retired_client_in(store: FleetStore) -> None:
    store.enrol("www")
    store.clients("retire", "www")
    note = store.root / ".byteback" / "hosts" / "www.retired"
    with become(store.user):
        note.unlink()
        os.mkfifo(note)
    assert "retired" in store.session("www").stderr
    store.clients("retire", "--undo", "www")
    assert store.session("www").status == 0
