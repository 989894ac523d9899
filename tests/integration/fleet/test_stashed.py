"""Who holds a word, a key or the store's user tries what should be over."""

from __future__ import annotations

import json
import time

import pytest

from byteback.model import clock_jump
from byteback.model.clock_jump import Reading, Record
from byteback.server.store import clock, state
from tests.integration.fleet.store import FleetStore
from tests.integration.fleet.test_invite import ENROL, Inviting, inviting
from tests.integration.fleet.test_retire import ENDS
from tests.integration.sealing.store import become, is_sealed
from tests.waiting import PATIENCE_S

__all__ = ["inviting"]

DAY_S = 86400.0


@pytest.mark.parametrize(
    "words", [("key", "--revoke", "www"), ("remove", "--yes", "www"), ("rename",)]
)
def test_a_stashed_word_opens_no_name_again(
    inviting: Inviting, words: tuple[str, ...]
) -> None:
    """The machine had a word, yet was enrolled by a login: the word stayed unused."""
    stashed = inviting.key_of(inviting.invite("www"), "stashed")
    again = inviting.key_of(inviting.invite("Web1"), "again")
    honest = inviting.key_of(inviting.invite("www2"), "honest")
    inviting.enrol("www", "own")
    inviting.clients(*(words if words != ("rename",) else ("rename", "www", "web1")))
    for key, name in ((stashed, "www"), (again, "web1")):
        tried = inviting.session(key, f"{ENROL} {name} {inviting.make_key('t' + name)}")
        is_untouched = name == "web1" and words != ("rename",)
        assert tried.status == (0 if is_untouched else 255), tried
    assert not any('--host www"' in line for line in inviting.lines())
    done = inviting.session(honest, f"{ENROL} www2 {inviting.make_key('new')}")
    assert done.status == 0, done


def test_a_word_changes_no_line_that_is_there(inviting: Inviting) -> None:
    """A public key is no secret: whoever knows it can name it in a request."""
    public = inviting.enrol("victim")
    path = inviting.root / ".ssh" / "authorized_keys"
    text = path.read_text().replace("restrict,", 'no-pty,from="192.0.2.7",')
    path.write_text(text)
    key = inviting.key_of(inviting.invite(), "invited")
    before = inviting.lines()
    tried = inviting.session(key, f"{ENROL} victim {public}")
    assert tried.status == 9, tried
    assert inviting.lines() == before
    assert inviting.session("victim").status == 255
    # A login may; and the word still serves.
    program = inviting.programs / ENROL
    assert inviting.run([program, "victim", *public.split()]).status == 0
    assert inviting.session("victim").status == 0
    honest = inviting.make_key("honest")
    assert inviting.session(key, f"{ENROL} honest {honest}").status == 0


def test_a_clock_that_was_set_back_revives_no_word(inviting: Inviting) -> None:
    """For the word it makes no difference which of clock and record is moved."""
    key = inviting.key_of(inviting.invite(), "invited")
    public = inviting.make_key("late")
    asked = f"{ENROL} late {public}"
    uptime = float(clock.UPTIME.read_text().split()[0])
    boot = state.BOOT_ID.read_text().strip()
    clock.PATH.parent.mkdir(exist_ok=True)
    for ahead, status in ((8 * DAY_S, 75), (0.0, 0)):
        seen = Record(trusted=Reading(time.time() + ahead, uptime, boot))
        clock.PATH.write_text(clock_jump.format_record(seen))
        tried = inviting.session(key, asked)
        assert tried.status == status, (ahead, tried)
        assert (inviting.root / "late").exists() == (status == 0)


def test_words_that_are_over_go(inviting: Inviting) -> None:
    inviting.invite("--valid", "30m", "over")
    inviting.invite("--valid", "30m", "open")
    path = inviting.root / ".ssh" / "authorized_keys"
    over, kept = inviting.lines()
    until = over.split("--invited ")[1].split(":")[1]
    late = over.replace(f":{until}:", f":{int(time.time()) - 1}:")
    path.write_text(f"{late}\n{kept}\n")
    inviting.tick()
    assert inviting.lines() == [kept]


def test_a_removed_clients_end_is_not_the_next_ones(store: FleetStore) -> None:
    """The store's user says that the newcomer was retired."""
    store.enrol("www")
    store.clients("retire", "--keep", "7", "www")
    store.clients("remove", "--yes", "www")
    store.enrol("www", "newcomer")
    made = store.snapshot("www", 20)
    assert store.tick().status == 0
    assert is_sealed(made)
    late = time.time() - DAY_S
    ends = json.loads(ENDS.read_text())
    ENDS.write_text(json.dumps(dict.fromkeys(ends, late)))
    with become(store.user):
        note = store.root / ".byteback/hosts/www.retired"
        note.write_text(f"{late:.0f} {late:.0f}\n")
    store.tick()
    assert is_sealed(made)
    assert ends == {}


@pytest.mark.parametrize("way", ["enrol", "rename"])
def test_a_name_that_was_freed_by_hand(store: FleetStore, way: str) -> None:
    """A connection is held while an administrator edits authorized_keys himself."""
    store.enrol("www")
    store.enrol("other")
    with store.held_connection("www") as held:
        path = store.root / ".ssh" / "authorized_keys"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if "--host www" not in line))
        store.as_user("btrfs", "subvolume", "delete", store.root / "www" / "current")
        (store.root / "www").rmdir()
        if way == "enrol":
            store.enrol("www", "victim")
        else:
            store.clients("rename", "other", "www")
        with become(store.user):
            (store.root / "www" / "current" / "secret").write_text("of another one")
        refused = store.run([*held, "byteback-receive --list /secret"])
        assert refused.status == 75, refused
        assert "of another" not in refused.stdout
    assert store.session("victim" if way == "enrol" else "other").status == 0


def test_a_used_word_asks_nothing_more(inviting: Inviting) -> None:
    """Its connection is held, and asks for names that are there, retired, or free."""
    for host in ("there", "retired"):
        inviting.enrol(host)
    inviting.clients("retire", "retired")
    key = inviting.key_of(inviting.invite(), "invited")
    public = inviting.make_key("curious")
    with inviting.invited_connection(key) as held:
        honest = inviting.make_key("honest")
        assert inviting.run([*held, f"{ENROL} honest {honest}"]).status == 0
        said = [
            inviting.run([*held, f"{ENROL} {name} {public}"])
            for name in ("there", "retired", "free")
        ]
    assert {one.status for one in said} == {9}
    assert len({one.stderr for one in said}) == 1, said


def test_a_word_for_other_names(inviting: Inviting) -> None:
    """Names that are nearly the one, no names, and those of what is in the store."""
    inviting.enrol("victim")
    named = inviting.key_of(inviting.invite("www"), "named")
    whoever = inviting.key_of(inviting.invite(), "whoever")
    public = inviting.make_key("new")
    before = inviting.lines(), sorted(p.name for p in inviting.root.iterdir())
    odd = (
        "",
        "..",
        ".",
        ".ssh",
        ".byteback",
        "-x",
        "www/",
        "a/b",
        "\uff37\uff37\uff37",
        "w\tw",
    )
    near = ("www.", "www.example", "ww", "wwww", "current", "victim", "VICTIM")
    taken = ("victim", "Victim", "x" * 254, "x" * 100_000)
    for key, names in ((named, (*odd, *near)), (whoever, (*odd, *taken))):
        for name in names:
            tried = inviting.session(key, f"{ENROL} {name} {public}")
            assert tried.status not in (0, 255), (name[:99], tried)
    found = inviting.lines(), sorted(p.name for p in inviting.root.iterdir())
    assert found == before
    assert inviting.session("victim").status == 0
    # The controls: a name like any other, and the one that was meant.
    assert inviting.session(whoever, f"{ENROL} current {public}").status == 0
    assert inviting.session("new").status == 0
    second = inviting.make_key("second")
    assert inviting.session(named, f"{ENROL} WWW {second}").status == 0


def test_a_push_without_an_end_keeps_no_client_from_being_retired(
    store: FleetStore,
) -> None:
    store.enrol("www")
    store.settings('sealed = true\n[host."www"]\ngrowth_factor = 9\n')
    with store.silent_push("www") as session:
        refused = store.clients("retire", "www", status=11)
        assert "key --revoke" in refused.stderr
        store.clients("key", "--revoke", "www")
        assert session.wait(PATIENCE_S) != 0
        store.clients("retire", "www")
    said = store.clients("remove", "--yes", "www").stdout
    assert 'a table [host."www"]: take it out' in said
