"""byteback-clients retire: refused with a word, and kept for a time."""

from __future__ import annotations

import json
import time
from pathlib import Path

from byteback.wire import failures
from tests.integration.conftest import EnrolledClient
from tests.integration.fleet.store import FleetStore
from tests.integration.programs import run_program

ENDS = Path("/var/lib/byteback/retired.json")


def test_a_retired_client_is_refused_with_a_word(store: FleetStore) -> None:
    store.enrol("www")
    store.enrol("other")
    made = store.snapshot("www", 20)
    assert store.session("www").status == 0
    shown = store.clients("retire", "--dry-run", "www").stdout
    assert shown.startswith("would refuse www from now on\n")
    assert store.session("www").status == 0
    store.clients("retire", "WWW")
    for words in ((), ("byteback-receive --complete",), ("byteback-receive --list /",)):
        refused = store.session("www", *words)
        assert refused.status == 9, refused
        said = refused.stderr.splitlines()
        assert failures.parse_reason(said) == failures.Reason.RETIRED
        assert "was retired on this server on 20" in refused.stderr
    assert store.session("other").status == 0
    # It is no client that could be given to another machine either.
    program = store.programs / "byteback-setup-client-receive"
    for number, given in enumerate(("www", "--replace-key Www")):
        key = store.make_key(f"new{number}")
        enrolled = store.run([program, *given.split(), *key.split()])
        assert enrolled.status == 9, enrolled
        assert "was retired" in enrolled.stderr
    listed = store.clients("list", "--json", "www").stdout
    (client,) = json.loads(listed)["clients"]
    assert client["standing"] == "retired"
    assert client["kept_until"] is None
    status = run_program([store.programs / "byteback-status", "--json", "www"])
    assert json.loads(status.stdout)["clients"][0]["is_retired"] is True
    # Its newest snapshot stays, whatever room is wanted.
    for _ in range(2):
        store.prune("--prune", "--minpercent", "99.5", "--maxpercent", "100")
    assert made.exists()
    assert store.clients("retire", "--undo", "www").stdout == (
        "www is no longer retired\n"
    )
    assert store.session("www").status == 0
    assert store.clients("retire", "--undo", "www").stdout == "www is not retired\n"


def test_after_its_time_it_is_removed(store: FleetStore) -> None:
    """By root's pruning alone; an administrator's own copy stays."""
    for host in ("www", "saved", "other"):
        store.enrol(host)
        store.snapshot(host, 20)
        store.snapshot(host, 10)
    (store.root / "saved" / "saved-by-me").mkdir()
    assert store.tick().status == 0
    for host in ("www", "saved"):
        store.clients("retire", "--keep", "7", host)
    assert "7" in store.clients("retire", "--keep", "6", "other", status=2).stderr
    assert store.tick().status == 0
    assert (store.root / "www" / "current").exists()
    late = time.time() - 8 * 86400
    notes = [store.root / ".byteback/hosts" / f"{h}.retired" for h in ("www", "saved")]
    # What the store's user writes does not hasten it.
    for note in notes:
        note.write_text(f"{late:.0f} {late:.0f}\n")
    assert store.tick().status == 0
    assert (store.root / "www" / "current").exists()
    ENDS.write_text(json.dumps(dict.fromkeys(("www", "saved", "other"), late)))
    assert store.prune("--prune", as_root=False).status == 0
    assert (store.root / "www" / "current").exists()
    done = store.tick()
    assert not (store.root / "www").exists(), done
    assert [p.name for p in (store.root / "saved").iterdir()] == ["saved-by-me"]
    # Of the third there is no note that it is retired.
    assert len(store.snapshots_of("other")) == 2
    assert store.session("www").status == 255
    assert json.loads(ENDS.read_text()) == {"other": late}
    (store.root / "saved" / "saved-by-me").rmdir()


def test_the_client_is_told(enrolled_client: EnrolledClient) -> None:
    source = Path("/etc/what-to-back-up")
    source.write_text("contents")
    program = enrolled_client.bin / "byteback-backup"
    argv: list[str | Path] = [program, "--source", source]
    assert run_program(argv).status == 0
    clients = enrolled_client.bin / "byteback-clients"
    run_program([clients, "retire", enrolled_client.host])
    began = time.monotonic()
    refused = run_program([*argv, "--retry-delay", "3600"], check=False)
    assert refused.status == 9, refused
    assert f"client '{enrolled_client.host}' was retired" in refused.stderr
    assert "retire --undo" in refused.stderr
    assert time.monotonic() - began < 3600
    run_program([clients, "retire", "--undo", enrolled_client.host])
    assert run_program(argv).status == 0
