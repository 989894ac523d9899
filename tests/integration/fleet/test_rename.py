"""byteback-clients rename: all that bears the old name follows."""

from __future__ import annotations

import json
from pathlib import Path

from byteback.server.snapshots import renamed
from byteback.server.store import change
from byteback.system.btrfs import subvolume
from tests.integration.conftest import EnrolledClient
from tests.integration.fleet.store import FleetStore
from tests.integration.programs import run_program
from tests.integration.sealing.store import is_sealed, mode_of


def test_everything_follows(store: FleetStore) -> None:
    for host in ("old", "old.example"):
        store.enrol(host)
        for days in (20, 10):
            store.snapshot(host, days)
    assert store.tick().status == 0
    store.record("old")
    store.record("old.example")
    rows = store.rows_of("old")
    modes = [mode_of(path) for path in store.snapshots_of("old")]
    changed = transactions(store, "old")
    store.settings('sealed = true\n[host."old"]\nexpect_hours = 5\n')
    store.clients("retire", "--keep", "30", "old")
    shown = store.clients("rename", "--dry-run", "OLD", "new").stdout
    assert "would move old/ to new/\n" in shown
    assert "would record 2 sealed snapshots as new's\n" in shown
    assert (store.root / "old" / "current").exists()
    shown = store.clients("rename", "OLD", "new").stdout
    assert shown.startswith("old is called new now\n")
    assert '[host."old"]' in shown
    assert store.traces_of("old") == []
    made = store.snapshots_of("new")
    assert len(made) == 2
    assert all(map(is_sealed, made))
    # None of them was open to be written to, not for a moment.
    assert transactions(store, "new") == changed
    assert [mode_of(path) for path in made] == modes
    assert store.rows_of("new") == rows
    (listed,) = json.loads(store.clients("list", "--json", "new").stdout)["clients"]
    assert listed["kept_until"] is not None
    ends = json.loads(Path("/var/lib/byteback/retired.json").read_text())
    assert list(ends) == ["new"]
    store.clients("retire", "--undo", "new")
    assert "is not being moved" in store.clients("move", "--undo", "new").stdout
    pinged = store.session("old", "byteback-receive --ping --json")
    assert json.loads(pinged.stdout)["host"] == "new"
    # The other one is what it was; pruning knows the new one.
    assert all(map(is_sealed, store.snapshots_of("old.example")))
    assert store.rows_of("old.example") == rows
    assert "cannot be deleted" not in store.prune("--list").stdout
    store.prune("--prune-force")
    assert len(store.snapshots_of("new") + store.snapshots_of("old.example")) == 3
    store.settings("sealed = true\n")


def transactions(store: FleetStore, host: str) -> list[int]:
    """When each of a client's snapshots changed last."""
    found = [subvolume.read_at(path) for path in store.snapshots_of(host)]
    return [one.changed for one in found if one is not None]


def test_a_name_that_is_free_again_has_a_history_of_its_own(store: FleetStore) -> None:
    """Renamed twice; another machine has got the first name, and is removed."""
    store.enrol("www")
    store.snapshot("www", 20)
    assert store.tick().status == 0
    store.clients("rename", "www", "second")
    store.clients("rename", "second", "third")
    store.enrol("www", "newcomer")
    store.snapshot("www", 10)
    assert store.tick().status == 0
    (mine,), (theirs,) = store.snapshots_of("third"), store.snapshots_of("www")
    assert is_sealed(mine)
    assert is_sealed(theirs)
    store.clients("remove", "--yes", "www")
    assert is_sealed(mine)
    store.snapshot("third", 0)
    assert store.prune("--prune-force").status == 0
    assert not mine.exists()
    store.clients("remove", "--yes", "third")
    assert json.loads(renamed.PATH.read_text()) == {}


def test_a_lost_record_is_made_again(store: FleetStore) -> None:
    """On another machine, say, which has taken the store over."""
    store.enrol("old")
    store.snapshot("old", 20)
    assert store.tick().status == 0
    store.clients("rename", "old", "new")
    store.snapshot("new", 10)
    assert store.tick().status == 0
    renamed.PATH.unlink()
    told = store.tick().stderr
    assert "'byteback-clients rename old new'" in told
    assert "cannot be deleted" in store.prune("--list").stdout
    store.clients("rename", "old", "new")
    assert all(map(is_sealed, store.snapshots_of("new")))
    assert "cannot be deleted" not in store.prune("--list").stdout


def test_taken_names_are_refused(store: FleetStore) -> None:
    store.enrol("www")
    store.enrol("other")
    store.let_in("only-a-key")
    (store.root / "a-link").symlink_to("/etc")
    (store.root / "a-file").touch()
    keys = (store.root / ".ssh" / "authorized_keys").read_bytes()
    for taken in ("other", "OTHER", "only-a-key", "A-link", "a-file"):
        refused = store.clients("rename", "www", taken, status=9)
        assert "is taken" in refused.stderr, taken
    for bad in ("..", ".ssh", "a/b", "a b", "", "-x"):
        assert store.clients("rename", "--", "www", bad, status=2).stderr
    assert "already" in store.clients("rename", "WWW", "www", status=2).stderr
    assert store.clients("rename", "nobody", "x", status=10).stderr
    assert (store.root / ".ssh" / "authorized_keys").read_bytes() == keys
    assert not change.PATH.exists()
    # The case of its letters may change.
    store.clients("rename", "www", "WWW")
    assert (store.root / "WWW" / "current").is_dir()
    assert store.session("www").status == 0


def test_renamed_by_hand(store: FleetStore) -> None:
    """The directory alone was moved, and its snapshots could not be pruned."""
    made = store.sealed("old", 20, 10)
    store.enrol("other")
    store.let_in("old")
    (store.root / "old").rename(store.root / "new")
    assert "cannot be deleted" in store.prune("--list").stdout
    refused = store.clients("rename", "old", "other", status=10)
    assert "has no directory here" in refused.stderr
    store.clients("rename", "old", "new")
    assert all(is_sealed(store.root / "new" / path.name) for path in made)
    assert "cannot be deleted" not in store.prune("--list").stdout
    assert (store.keys_of("old"), store.keys_of("new")) == (0, 1)


def test_backups_go_on(enrolled_client: EnrolledClient) -> None:
    """The client notices nothing: neither its tree's token nor its machine is lost."""
    source = Path("/etc/goes-on-when-renamed")
    source.mkdir()
    (source / "first").write_text("first")
    programs = enrolled_client.bin
    backup: list[str | Path] = [programs / "byteback-backup", "--source", source]
    run_program(backup)
    before = ping(enrolled_client)
    assert before["tree"]
    run_program([programs / "byteback-clients", "rename", enrolled_client.host, "new"])
    after = ping(enrolled_client)
    assert (after["tree"], after["host"]) == (before["tree"], "new")
    machine = enrolled_client.store / ".byteback" / "hosts" / "new.machine"
    assert machine.exists()
    (source / "later").write_text("later")
    run_program(backup)
    shown = run_program([programs / "byteback-status", "--json", "new"]).stdout
    (client,) = json.loads(shown)["clients"]
    assert [b["result"] for b in client["backups"]] == ["whole", "whole"]
    current = enrolled_client.store / "new" / "current"
    assert (current / "etc/goes-on-when-renamed/later").read_text() == "later"
    found = run_program([programs / "byteback-restore", "--all", source / "later"])
    assert "current" in found.stdout


def ping(client: EnrolledClient) -> dict[str, object]:
    """What the server says to the client's own key."""
    configuration = client.configuration
    options = ["-o", f"UserKnownHostsFile={configuration / 'known_hosts'}"]
    place = ["-p", str(client.port), "-i", str(configuration / "key")]
    login = f"{client.user.name}@127.0.0.1"
    argv = ["ssh", *options, *place, login, "byteback-receive --ping --json"]
    found: dict[str, object] = json.loads(run_program(argv).stdout)
    return found
