"""byteback-clients key: a key that is taken away opens nothing any more."""

from __future__ import annotations

from pathlib import Path

from tests.integration.fleet.store import FleetStore
from tests.waiting import PATIENCE_S

KEYS = "/.ssh/authorized_keys"


def test_show(store: FleetStore) -> None:
    store.enrol("www")
    store.client("keyless")
    shown = store.clients("key", "WWW").stdout
    assert shown == f"{store.fingerprint('www')}  ssh-ed25519\n"
    assert store.clients("key", "keyless").stdout == ""
    assert "is no client" in store.clients("key", "nobody", status=10).stderr


def test_replace(store: FleetStore) -> None:
    store.enrol("www")
    other = store.enrol("other")
    store.history("old", 20)
    assert store.session("www").status == 0
    store.make_key("new")
    new = store.keys / "new.pub"
    keys = Path(f"{store.root}{KEYS}")
    before = keys.read_bytes()
    planned = store.clients("key", "--replace", new, "--dry-run", "www").stdout
    assert store.fingerprint("new") in planned
    assert store.fingerprint("www") in planned
    assert keys.read_bytes() == before
    store.clients("key", "--replace", new, "www")
    assert store.session("www").status == 255
    assert store.session("new").status == 0
    shown = store.clients("key", "www").stdout
    assert shown.split()[0] == store.fingerprint("new")
    assert store.session("other").status == 0
    # Again: nothing changes. Text and standard input do as well.
    before = keys.read_bytes()
    store.clients("key", "--replace", new.read_text(), "www")
    store.clients("key", "--replace", "-", "www", stdin=new.read_text())
    assert keys.read_bytes() == before
    for words in (("--replace", other), ("--replace", other, "--dry-run")):
        refused = store.clients("key", *words, "www", status=9)
        assert "already belongs to the client 'other'" in refused.stderr
    for wrong in ("no key", "/nowhere", str(store.keys / "new")):
        assert store.clients("key", "--replace", wrong, "www", status=2).stderr
    assert keys.read_bytes() == before


def test_revoke(store: FleetStore) -> None:
    store.enrol("www")
    store.enrol("other")
    assert store.session("www").status == 0
    shown = store.clients("key", "--revoke", "-n", "www").stdout
    assert shown.startswith("would take away the key SHA256:")
    assert store.session("www").status == 0
    shown = store.clients("key", "--revoke", "Www").stdout
    assert shown == f"took away the key {store.fingerprint('www')} of www\n"
    assert store.session("www").status == 255
    assert store.session("other").status == 0
    assert store.clients("key", "--revoke", "www").stdout == "www has no key\n"
    assert (store.root / "www" / "current").is_dir()


def test_a_connection_held_open_serves_no_old_key(store: FleetStore) -> None:
    """A client keeps a connection, and asks on it when its key has been replaced."""
    for host in ("www", "other"):
        store.enrol(host)
        (store.root / host / "current" / "file").write_text(f"of {host}")
    store.make_key("new")
    with (
        store.held_connection("www") as old,
        store.held_connection("other") as other,
    ):
        store.clients("key", "--replace", store.keys / "new.pub", "www")
        for words in ("byteback-receive --ping", "byteback-receive --list /file"):
            refused = store.run([*old, words])
            assert refused.status == 75, refused
            assert "since this connection began" in refused.stderr
            assert "of www" not in refused.stdout
        assert store.session("new").status == 0
        # Whose key was not changed is not in the way of anything.
        assert store.run([*other, "byteback-receive --ping"]).status == 0
    with store.held_connection("new") as new:
        assert store.run([*new, "byteback-receive --ping"]).status == 0


def test_sessions_under_way_end(store: FleetStore) -> None:
    """A transfer that waits for its client is over when the key is taken away."""
    store.enrol("www")
    store.enrol("other")
    with store.silent_push("www") as ours, store.silent_push("other") as other:
        shown = store.clients("key", "--revoke", "www").stdout
        assert shown.endswith("ended 1 session of www\n")
        assert ours.wait(PATIENCE_S) != 0
        assert other.poll() is None


def test_enrolling_again_shuts_an_old_connection_out(store: FleetStore) -> None:
    store.enrol("www")
    (store.root / "www" / "current" / "file").write_text("of www")
    new = store.make_key("new")
    program = store.programs / "byteback-setup-client-receive"
    with store.held_connection("www") as old:
        store.run([program, "--replace-key", "www", *new.split()])
        refused = store.run([*old, "byteback-receive --list /file"])
        assert refused.status == 75, refused
        assert store.session("new").status == 0
