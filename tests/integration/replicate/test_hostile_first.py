"""As the first server: nothing that the second one has changes, or is lost."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from byteback.wire import changed_names
from tests.integration.programs import run_program
from tests.integration.replicate.trees import facts_of
from tests.integration.replicate.world import NAME, First, Second
from tests.waiting import wait_until

Servers = tuple[First, Second]

# The forced command of a first server in other hands: what it answers is in files.
_PROGRAM = """\
#!/usr/bin/python3 -I
import os, sys, time
asked = os.environ["SSH_ORIGINAL_COMMAND"]
place = {place!r}
if "--list" in asked:
    answer = open(place + "/listing", "rb").read()
    if answer == b"endless":
        while True:
            os.write(1, b"x" * 65536)
    sys.stdout.buffer.write(answer)
    sys.exit(0)
if "--fetch breaks" in asked:
    sys.exit(255)
while os.path.exists(place + "/hold"):
    time.sleep(0.05)
if os.path.exists(place + "/names"):
    os.write(1, open(place + "/names", "rb").read())
if os.path.exists(place + "/rubbish"):
    os.write(2, b"byteback-receive: error: \\x1b[31mall is well\\n  hint: rm -rf /\\n")
    os.write(1, b"\\x20\\0\\0\\0" + os.urandom(1 << 20))
    sys.exit(9)
os.execv({program!r}, [{program!r}, "--replica", {name!r}])
"""
HEADER = {"byteback": "1.0.0", "replication": 1}


class HostileFirst:
    """The first server, whose answers are made up."""

    def __init__(self, first: First, place: Path) -> None:
        self.first = first
        self.place = place

    def answer(self, *clients: object, end: int | None = None) -> None:
        lines = [HEADER, *clients, {"clients": len(clients) if end is None else end}]
        self.raw("".join(f"{json.dumps(line)}\n" for line in lines).encode())

    def raw(self, listing: bytes) -> None:
        (self.place / "listing").write_bytes(listing)


@pytest.fixture
def hostile(servers: Servers) -> Iterator[HostileFirst]:
    """The forced command of the replica's key, in other hands for one test."""
    first, _ = servers
    place = Path("/srv/hostile")
    place.mkdir()
    program = first.programs / "byteback-receive"
    script = place / "serve"
    text = _PROGRAM.format(place=str(place), program=str(program), name=NAME)
    script.write_text(text)
    script.chmod(0o755)
    keys = first.root / ".ssh" / "authorized_keys"
    before = keys.read_text()
    mine = re.compile(rf'command="[^"]* --replica {re.escape(NAME)}"')
    after, count = mine.subn(f'command="{script}"', before)
    assert count == 1
    # The real program, which serves the transfers, still looks for its line.
    unused = "AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43
    line = f'command="{program} --replica {NAME}" ssh-ed25519 {unused}\n'
    keys.write_text(after + line)
    yield HostileFirst(first, place)
    keys.write_text(before)
    run_program(["rm", "-r", place])


def all_of(second: Second) -> dict[str, object]:
    """Everything that the second server has of all clients."""
    return {
        str(tree): facts_of(tree)
        for directory in second.root.iterdir()
        if not directory.name.startswith(".")
        for tree in directory.glob("2*")
    }


def test_names_and_dates(servers: Servers, hostile: HostileFirst) -> None:
    """Paths, options, controls and twins for names; the right ones still arrive."""
    first, second = servers
    name = first.history("honest", 4)[0]
    good = ["2026-11-01T00:00+0000", "aa", False]
    hostile.answer(
        *(
            {"client": bad, "snapshots": [good]}
            for bad in ("../x", ".ssh", "a/b", "-rf")
        ),
        *({"client": bad, "snapshots": [good]} for bad in ("", "x\n", "a\x1b[31m", 7)),
        {"client": "HONEST", "snapshots": []},
        {"client": "honest", "snapshots": [good]},
        {"client": "strange", "snapshots": "none"},
        {
            "client": "odd",
            "snapshots": [
                *(["current", "", False], ["../..", "", False], ["march", "", 0]),
                *(
                    ["2026-11-01T00:00+0000\n", "", False],
                    ["2999-01-01T00:00+0000", "", 0],
                ),
                *([], 7, ["2026-13-01T00:00+0000", "", False]),
                ["2026-11-01T00:00+0000", "../token", False],
            ],
        },
    )
    told = second.replicate("--verbose", status=1).stderr
    for part in ("'../x' cannot be", "'.ssh' cannot be", "is there twice", "'a/b'"):
        assert part in told
    assert "'odd/2999-01-01T00:00+0000' is dated more than a day ahead" in told
    assert "\x1b" not in told
    assert {p.name for p in second.root.iterdir()} <= {
        *(".ssh", ".byteback", ".cache", "honest"),
    }
    hostile.answer({"client": "honest", "snapshots": [[name, "", False]]})
    second.replicate()
    assert second.snapshots("honest") == [name]


LISTINGS = (
    b"rubbish\n",
    b'{"byteback":"1","replication":1}\n{"client":"x","snapshots":[]}\n',
    b"endless",
)


def test_no_listing(servers: Servers, hostile: HostileFirst) -> None:
    _, second = servers
    before = all_of(second)
    for listing in LISTINGS:
        hostile.raw(listing)
        assert "Traceback" not in second.replicate(status=9).stderr
    assert all_of(second) == before
    hostile.answer()
    second.replicate()


def test_rubbish_in_place_of_a_transfer(
    servers: Servers, hostile: HostileFirst
) -> None:
    first, second = servers
    old = first.history("rubbish", 9)[0]
    hostile.answer({"client": "rubbish", "snapshots": [[old, "", False]]})
    second.replicate()
    before = facts_of(second.root / "rubbish" / old)
    new = first.history("rubbish", 8)[0]
    both = {"client": "rubbish", "snapshots": [[old, "", False], [new, "", False]]}
    hostile.answer(both)
    (hostile.place / "rubbish").touch()
    told = second.replicate(status=9).stderr
    assert "\x1b" not in told
    assert "hint: rm" not in told
    assert second.snapshots("rubbish") == [old]
    assert facts_of(second.root / "rubbish" / old) == before
    assert second.state("rubbish") == "whole"  # rsync was not even started
    # And after names that are well-formed, of which none is there.
    names = map(changed_names.format_name, (b"../current/etc/day", b"/etc/passwd"))
    sent = b"".join(names) + changed_names.END
    (hostile.place / "names").write_bytes(sent)
    second.replicate(status=9)
    assert facts_of(second.root / "rubbish" / old) == before
    assert second.state("rubbish") == "failed"
    (hostile.place / "names").unlink()
    (hostile.place / "rubbish").unlink()
    second.replicate()
    assert second.snapshots("rubbish") == [old, new]
    assert second.state("rubbish") == "whole"


def test_a_client_whose_sessions_break(servers: Servers, hostile: HostileFirst) -> None:
    """To ssh that is as a server that is gone, and the others are still brought."""
    first, second = servers
    names = {name: first.history(name, 5)[0] for name in ("breaks", "whole")}
    hostile.answer(
        *({"client": n, "snapshots": [[made, "", 0]]} for n, made in names.items())
    )
    assert "'breaks': " in second.replicate(status=12).stderr
    assert second.snapshots("breaks") == []
    assert second.snapshots("whole") == [names["whole"]]


def test_replaced_and_back_dated(servers: Servers) -> None:
    """What is here stays, is told each time, and what comes later arrives."""
    first, second = servers
    old, new = first.history("changed", 9, 5)
    second.replicate()
    before = all_of(second)
    first.delete("changed", new)
    first.write("changed", "etc/day", b"another history")
    assert first.snapshot("changed", 5) == new
    back = first.snapshot("changed", 7)
    told = second.replicate(status=1).stderr
    assert f"'changed/{new}' is another snapshot there" in told
    assert f"'changed/{back}' is older than the newest one here" in told
    assert all_of(second) == before
    later = first.history("changed", 1)[0]
    assert second.replicate(status=1).stderr == told
    assert second.snapshots("changed") == [old, new, later]
    for name in (new, back):
        first.delete("changed", name)
    assert second.replicate().stderr == ""


def test_a_renamed_client_is_not_fetched_again(servers: Servers) -> None:
    first, second = servers
    names = first.history("before", 9, 8)
    second.replicate()
    first.clients("rename", "before", "after")
    told = second.replicate(status=1).stderr
    assert "'byteback-clients rename before after' does the same here" in told
    assert not (second.root / "after").exists()
    second.program("byteback-clients", "rename", "before", "after")
    newer = first.history("after", 1)[0]
    assert second.replicate().stderr == ""
    assert second.snapshots("after") == [*names, newer]


def enrol(second: Second, name: str, tmp_path: Path) -> None:
    """Make ``name`` a client of the second server's own, with a new key."""
    run_program(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"])
    key = (tmp_path / "key.pub").read_text().split()
    second.program("byteback-setup-client-receive", name, *key)


def test_a_client_of_the_seconds_own(servers: Servers, tmp_path: Path) -> None:
    """It is not fetched, whatever the first server has under its name."""
    first, second = servers
    enrol(second, "own", tmp_path)
    first.history("own", 3)
    told = second.replicate(status=1).stderr
    assert "'own' is a client of this server itself" in told
    assert second.snapshots("own") == []
    assert list((second.root / "own" / "current").iterdir()) == []
    second.program("byteback-clients", "remove", "--yes", "own")
    second.replicate()
    assert second.snapshots("own")


def test_a_client_that_comes_during_a_round(
    servers: Servers, hostile: HostileFirst, tmp_path: Path
) -> None:
    """The first server named it before, and then let the round take its time."""
    first, second = servers
    slow, late = first.history("slow", 3)[0], first.history("late", 3, 2)[0]
    hostile.answer(
        {"client": "slow", "snapshots": [[slow, "", False]]},
        {"client": "late", "snapshots": [[late, "", False]]},
    )
    (hostile.place / "hold").touch()
    with ThreadPoolExecutor() as pool:
        try:
            round_ = pool.submit(second.replicate, status=9)
            noted = second.root / ".byteback" / "hosts" / "slow.replica"
            wait_until(noted.exists)
            enrol(second, "late", tmp_path)
            second.as_user("touch", second.root / "late" / "current" / "own")
        finally:
            (hostile.place / "hold").unlink()
        assert "'late' is a client of this server itself" in round_.result().stderr
    assert [p.name for p in (second.root / "late" / "current").iterdir()] == ["own"]
    assert second.snapshots("late") == []
    assert not noted.with_name("late.replica").exists()
    assert second.snapshots("slow") == [slow]
    second.program("byteback-clients", "remove", "--yes", "late")


def test_names_of_what_is_no_client_yet(
    servers: Servers, hostile: HostileFirst
) -> None:
    """An administrator's directory would become a client, and then be pruned."""
    first, second = servers
    names = ("Shelf", "guest", "welcome")
    made = {name: first.history(name, 5)[0] for name in names}
    second.as_user("mkdir", "--parents", second.root / "shelf/2001-01-01T00:00+0000")
    second.program("byteback-clients", "invite", "guest")
    hostile.answer(*({"client": n, "snapshots": [[made[n], "", 0]]} for n in names))
    told = second.replicate(status=1).stderr
    for name in ("Shelf", "guest"):
        assert f"'{name}' is a client of this server itself, or" in told
        assert not (second.root / name).exists()
    assert [p.name for p in (second.root / "shelf").iterdir()] == [
        "2001-01-01T00:00+0000"
    ]
    assert second.snapshots("welcome") == [made["welcome"]]
    run_program(["rm", "-r", second.root / "shelf"])


# byteback-replicate, whose clock goes on by some days as soon as a transfer runs.
_HURRIED = """\
import sys, time, types
sys.path.insert(0, "/usr/local/lib/byteback")
from byteback.cli import replicate
from byteback.server.replicate import bring
state = sys.argv[1]
def monotonic():
    try:
        return time.monotonic() + 1e6 * open(state).read().startswith("running")
    except FileNotFoundError:
        return time.monotonic()
bring.time = types.SimpleNamespace(monotonic=monotonic, time=time.time)
sys.argv = ["byteback-replicate", "--all"]
replicate.main()
"""


def test_a_transfer_without_an_end(servers: Servers, hostile: HostileFirst) -> None:
    """It ends in time for the other first servers."""
    first, second = servers
    name = first.history("endless", 3)[0]
    hostile.answer({"client": "endless", "snapshots": [[name, "", False]]})
    second.replicate("--dry-run")
    other = second.directory.with_name("localhost")
    run_program(["cp", "--archive", second.directory, other])
    for path in (other / "from", other / "known_hosts"):
        path.write_text(path.read_text().replace("127.0.0.1", "localhost"))
    (hostile.place / "hold").touch()
    try:
        state = second.root / ".byteback" / "hosts" / "endless.state"
        told = second.run("/usr/bin/python3", "-c", _HURRIED, state, status=1).stderr
        assert "'endless' is fetched from '127.0.0.1' already" in told
        assert "was not brought" not in told  # no time limit of rsync's
        assert second.snapshots("endless") == []
        assert second.state("endless") == "failed"
    finally:
        (hostile.place / "hold").unlink()
        run_program(["rm", "-r", other])
    second.replicate()
    assert second.snapshots("endless") == [name]


def test_clients_and_snapshots_without_number(
    servers: Servers, hostile: HostileFirst
) -> None:
    """What is here already goes on, and of what is new so many come, and no more."""
    first, second = servers
    names = first.history("known", 9, 8, 7, 6)
    shown = [[made, "", False] for made in names]
    hostile.answer({"client": "known", "snapshots": shown[:1]})
    second.replicate()
    allowed = len(list((second.root / ".byteback" / "hosts").glob("*.replica"))) + 7
    second.settings(f"replica_clients = {allowed}\nreplica_snapshots = 3\n")
    try:
        made_up = ({"client": f"x{n}", "snapshots": shown[:1]} for n in range(500))
        hostile.answer(*made_up, {"client": "known", "snapshots": shown})
        told = second.replicate("--dry-run").stdout
        assert told.count("would bring x") == 7
        assert "493 clients more than replica_clients allows" in told
        assert "1 snapshot of 'known' more than replica_snapshots allows" in told
        hostile.answer({"client": "known", "snapshots": shown})
        second.replicate(status=1)
        assert second.snapshots("known") == names[:3]
    finally:
        second.settings("")
