"""byteback-clients list."""

from __future__ import annotations

import json
import shutil

from tests.integration.fleet.store import FleetStore
from tests.integration.programs import run_program


def test_list_shows_keys_and_history(store: FleetStore) -> None:
    for host in ("active.example", "half", "other"):
        store.enrol(host)
    store.history("keyless", 30, 3)
    made = [store.root / "other" / name for name in ("x", "saved-by-me")]
    for path in made:
        path.mkdir()
    store.as_user("btrfs", "subvolume", "delete", store.root / "half" / "current")
    (store.root / "half").rmdir()
    lines = store.clients("list").stdout.splitlines()
    rows = {line.split()[0]: line.split() for line in lines}
    assert list(rows) == ["client", "active.example", "half", "keyless", "other"]
    key = store.fingerprint("active.example")
    assert rows["active.example"] == ["active.example", "active", "0", "-", "-", key]
    assert rows["half"][1:3] == ["no", "directory"]
    assert rows["half"][-1] == store.fingerprint("half")
    names = sorted(p.name for p in (store.root / "keyless").glob("2*"))
    assert rows["keyless"] == ["keyless", "no", "key", "2", *names, "-"]
    assert rows["other"][2] == "0"
    # The store's user may look, too; names are compared without regard to case.
    argv = [*store.as_user_words, store.programs / "byteback-clients"]
    shown = run_program([*argv, "list", "--json", "KEYLESS", "half"]).stdout
    keyless, half = json.loads(shown)["clients"]
    assert (keyless["name"], keyless["standing"]) == ("keyless", "no key")
    assert (keyless["oldest"], keyless["newest"]) == tuple(names)
    assert half["keys"] == [
        {
            "kind": "ssh-ed25519",
            "fingerprint": store.fingerprint("half"),
            "address": None,
            "is_old_line": False,
        }
    ]
    refused = store.clients("list", "nobody", status=10)
    assert "'nobody' is no client" in refused.stderr
    assert refused.stdout == ""
    for path in made:
        shutil.rmtree(path)


def test_names_are_completed(store: FleetStore) -> None:
    store.enrol("www1")
    store.enrol("db")
    env = {
        "_BYTEBACK_CLIENTS_COMPLETE": "bash_complete",
        "COMP_WORDS": "byteback-clients list W",
        "COMP_CWORD": "2",
    }
    program = store.programs / "byteback-clients"
    assert run_program([program], env=env).stdout == "plain,www1\n"
