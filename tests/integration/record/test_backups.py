"""Whole backups by the real programs: in part if that is right, else in full."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from byteback.client.record import blocks
from byteback.server.accounting import sizes
from byteback.server.store import state, tree_token
from byteback.server.store.layout import Store
from tests.integration import conftest as installation
from tests.integration.conftest import EnrolledClient
from tests.integration.programs import run_program
from tests.integration.record import reference
from tests.integration.record.histories import RULES, History

pytestmark = pytest.mark.integration

SOURCE = Path("/srv/source-of-records")
STATE = Path("/var/lib/byteback")
RECORD = Path("/var/cache/byteback/record")
SURE_S = 0.1


@dataclass
class World:
    """A client with a disc of its own, and its server."""

    client: EnrolledClient
    work: Path

    @property
    def current(self) -> Path:
        """The server's copy of the source."""
        current = self.client.store / self.client.host / "current"
        return current / SOURCE.relative_to("/")

    @property
    def store(self) -> Store:
        """The server's store."""
        return Store(self.client.store)

    def command(self, *words: str) -> list[str | Path]:
        """byteback-backup's command line."""
        program = self.client.bin / "byteback-backup"
        return [program, "--verbose", "--source", SOURCE, "-r", "0", *words]

    def back_up(self, *words: str, status: int = 0) -> str:
        """Back up, and return what was said."""
        done = run_program(self.command(*words), check=False)
        assert done.status == status, done
        return done.stdout + done.stderr

    def differences(self) -> list[str]:
        """How the server's tree is another one than a full backup would leave."""
        shell = reference.remote_shell(self.work, self.client.user.name)
        place = self.work / "expected"
        return reference.compare([shell], SOURCE, self.current, place)


@pytest.fixture
def world(
    enrolled_client: EnrolledClient, disc: Path, tmp_path: Path
) -> Iterator[World]:
    """A client of whose source nothing was sent yet."""
    for path in (STATE / "largest-file", STATE / "record-missed", RECORD):
        path.unlink(missing_ok=True)
    source = disc / "world"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    SOURCE.unlink(missing_ok=True)
    SOURCE.mkdir(exist_ok=True)
    run_program(["mount", "--bind", source, SOURCE])
    # No midnight within a test is the one at which everything is to be compared.
    (enrolled_client.configuration / "full_every_days").write_text("366\n")
    walk = installation.LIBRARY / "byteback/client/record/walk.py"
    text = walk.read_text()
    walk.write_text(text.replace("RACY_NS = 2_000_000_000", "RACY_NS = 30_000_000"))
    assert walk.read_text() != text
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if Path("/tmp") in parent.parents:
            parent.chmod(0o755)
    try:
        yield World(enrolled_client, tmp_path)
    finally:
        walk.write_text(text)
        installation.unmount(SOURCE)
        SOURCE.rmdir()


@pytest.fixture
def old_world(world: World) -> World:
    """The same client after a few days."""
    for name in ("a", "d/x", "d/y", "#c", "e/w"):
        path = SOURCE / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"contents of {name}")
    time.sleep(SURE_S)
    assert "everything is compared: nothing is known" in world.back_up()
    assert not world.differences()
    return world


def sent(said: str) -> int | None:
    """How many names were listed; None for a full comparison."""
    found = re.search(r"^sending (\d+) names? that changed", said, re.MULTILINE)
    if "everything is compared" in said:
        return None
    assert found, said
    return int(found[1])


def test_changes_go_in_part(old_world: World) -> None:
    few = sent(old_world.back_up())
    assert few is not None
    (SOURCE / "a").write_text("changed")
    (SOURCE / "#c").write_text("changed")
    (SOURCE / "d" / "y").unlink()
    shutil.rmtree(SOURCE / "e")
    (SOURCE / "e").write_text("no directory any more")
    (SOURCE / "new" / "deep").mkdir(parents=True)
    (SOURCE / "new" / "deep" / "file").write_text("new")
    number = sent(old_world.back_up())
    assert number is not None
    assert few < number < few + 12
    assert not old_world.differences()
    time.sleep(SURE_S)
    assert sent(old_world.back_up()) == few


@pytest.mark.parametrize("names", [("a",), ("a", "d/y")])
def test_an_acl_stays_when_a_files_contents_change(
    old_world: World, names: tuple[str, ...]
) -> None:
    """Also one of a file with several names, which is a full comparison."""
    for name in names[1:]:
        (SOURCE / name).unlink()
        (SOURCE / name).hardlink_to(SOURCE / names[0])
    run_program(["setfacl", "-m", "u:100:rw", SOURCE / "a"])
    time.sleep(SURE_S)
    old_world.back_up()
    for contents in ("more contents than before", "less"):
        (SOURCE / "a").write_text(contents)
        time.sleep(SURE_S)
        said = old_world.back_up()
        assert (sent(said) is None) == (len(names) > 1), said
        assert not old_world.differences()
        for name in names:
            assert "user.rsync.%aacl" in os.listxattr(old_world.current / name)


def known_size(world: World) -> int | None:
    """The size that the ledger has of the client's newest snapshot."""
    return sizes.client_sizes(world.store, {world.client.host: None})[
        world.client.host
    ].current


def test_the_server_hears_how_large_the_client_is(old_world: World) -> None:
    def real_size() -> int:
        found = (
            path for path in SOURCE.rglob("*") if path.is_symlink() or path.is_file()
        )
        return sum(path.lstat().st_size for path in found)

    assert known_size(old_world) == real_size() > 0
    (SOURCE / "new").write_bytes(b"x" * 100_000)
    (SOURCE / "link").symlink_to("new")
    (SOURCE / "a").unlink()
    time.sleep(SURE_S)
    # Another snapshot is due now.
    for snapshot in old_world.store.snapshots(old_world.client.host):
        run_program(
            ["btrfs", "subvolume", "delete", old_world.store.root / snapshot.path]
        )
    assert sent(old_world.back_up()) is not None
    assert known_size(old_world) == real_size() > 100_000
    # A record of an older version does not know: then the server keeps what it has.
    alter_record(size=None)
    (SOURCE / "new").unlink()
    assert sent(old_world.back_up()) is not None
    assert known_size(old_world) == real_size() + 100_000


def test_full_asks_for_a_comparison_of_everything(old_world: World) -> None:
    assert "--full was given" in old_world.back_up("--full")
    time.sleep(SURE_S)
    assert sent(old_world.back_up()) is not None


def alter_record(**fields: object) -> None:
    """Change what the record says of itself; its digests are right again."""
    with RECORD.open("rb") as file:
        reader = blocks.Reader(file)
        about = {**reader.about, **fields}
        with RECORD.with_suffix(".altered").open("wb") as altered:
            writer = blocks.Writer(altered)
            for block in reader:
                writer.add(block)
            writer.finish(about)
    RECORD.with_suffix(".altered").replace(RECORD)


def test_the_day_for_a_comparison_comes(old_world: World) -> None:
    (old_world.client.configuration / "full_every_days").unlink()
    alter_record(full=time.time_ns() - 8 * 86_400 * 10**9)
    assert "it is the day for it" in old_world.back_up()
    assert sent(old_world.back_up()) is not None


@pytest.mark.parametrize("text", ["0", "x", "-1", "1.5", "367"])
def test_a_wrong_number_of_days_is_refused(old_world: World, text: str) -> None:
    place = old_world.client.configuration / "full_every_days"
    place.write_text(text)
    try:
        assert "full_every_days" in old_world.back_up(status=2)
    finally:
        place.unlink()


def discard(world: World) -> None:
    """Put current back to the last snapshot."""
    (SOURCE / "a").write_text("sent after the snapshot")
    world.back_up()
    program = world.client.bin / "byteback-prune"
    run_program([program, "--discard", world.client.host])


def write_by_hand(world: World) -> None:
    """Change the server's tree."""
    (world.current / "a").write_text("an administrator was here")


def replace_by_copy(world: World) -> None:
    """Put a copy of the newest snapshot in its place."""
    current = world.store.current(world.client.host)
    (snapshot,) = world.store.snapshots(world.client.host)
    run_program(["btrfs", "subvolume", "delete", current])
    source = current.with_name(snapshot.name)
    as_user = ["setpriv", "--reuid", world.client.user.name, "--clear-groups"]
    run_program([*as_user, "btrfs", "subvolume", "snapshot", source, current])


def other_machine(world: World) -> None:
    """Another machine with this one's key, but not its record."""
    kept = world.work / "record"
    shutil.move(RECORD, kept)
    other = SOURCE / "other"
    other.write_text("of the other machine")
    world.back_up()
    other.unlink()
    shutil.copy2(kept, RECORD)


def image_restored(world: World) -> None:
    """The client as it was a few backups ago, record and all."""
    kept = world.work / "record"
    shutil.copy2(RECORD, kept)
    (SOURCE / "later").write_text("undone")
    world.back_up()
    (SOURCE / "later").unlink()
    shutil.copy2(kept, RECORD)


def other_rules(world: World) -> None:
    """An administrator leaves something out."""
    (world.client.configuration / "excludes").write_text(f"{SOURCE}/d/x\n")


def rules_in_directories(world: World) -> None:
    """Rules that lie in the directories themselves."""
    (world.client.configuration / "rsync_filter").write_text("dir-merge .rules\n")


def odd_flag(world: World) -> None:
    """An option that may change what is sent."""
    (world.client.configuration / "rsync_flags").write_text("--max-size=1G\n")


EVENTS = {
    "a discard": discard,
    "a change at the server": write_by_hand,
    "a copy in its place": replace_by_copy,
    "another machine": other_machine,
    "a restored image": image_restored,
    "other rules": other_rules,
    "rules in directories": rules_in_directories,
    "an odd flag": odd_flag,
}


@pytest.mark.parametrize("event", EVENTS)
def test_everything_is_compared_after(old_world: World, event: str) -> None:
    try:
        EVENTS[event](old_world)
        (SOURCE / "e" / "w").write_text("changed as well")
        assert sent(old_world.back_up()) is None
        if event == "other rules":
            assert not (old_world.current / "d" / "x").exists()
        else:
            assert not old_world.differences()
    finally:
        for name in ("excludes", "rsync_filter", "rsync_flags"):
            (old_world.client.configuration / name).unlink(missing_ok=True)


def has_alarm(world: World) -> bool:
    """True if byteback-status tells of a record that missed something."""
    said = run_program([world.client.bin / "byteback-status", "--json"], check=False)
    alarms = json.loads(said.stdout)["alarms"]
    return "record" in {alarm["kind"] for alarm in alarms}


def test_a_missed_change_is_an_error_until_somebody_has_looked(
    old_world: World,
) -> None:
    """The server's tree is spoilt, and what both sides know of it with it."""
    host, store = old_world.client.host, old_world.store
    (old_world.current / "d" / "x").write_text("spoilt")
    run_program(["btrfs", "filesystem", "sync", store.root])
    mark = tree_token.make(store, host, None)
    state.write(store, host, state.Transfer.WHOLE, mark)
    alter_record(token=tree_token.token(store, host))
    assert sent(old_world.back_up()) is not None, "nothing tells of it"
    assert old_world.differences()
    alter_record(full=0)
    said = old_world.back_up()
    assert "1 change had been missed" in said
    assert str(SOURCE / "d" / "x") in said
    assert not old_world.differences()
    assert has_alarm(old_world)
    for _ in range(2):
        assert "had been missed" in old_world.back_up(), "until somebody looks"
    assert has_alarm(old_world)
    assert sent(old_world.back_up("--full")) is None
    assert not has_alarm(old_world)
    assert sent(old_world.back_up()) is not None


def test_histories_by_the_real_programs(world: World, nightly_s: float | None) -> None:
    started, seed, partial = time.monotonic(), 0, 0
    while seed < 2 or time.monotonic() - started < (nightly_s or 0):
        partial += tell(world, seed)
        seed += 1
    assert partial > seed


def tell(world: World, seed: int) -> int:
    """One history, with killed backups and discards in it; how many went in part."""
    for path in SOURCE.iterdir():
        run_program(["rm", "--recursive", "--force", path])
    aside = SOURCE / "exc" / "aside"  # what is moved there is left out
    aside.mkdir(parents=True)
    rules = world.client.configuration / "excludes"
    rules.write_text("".join(as_line(rule) for rule in RULES))
    # A whole backup leaves out by itself what is mounted there.
    history, partial = History(SOURCE, aside, seed, with_mounts=False), 0
    try:
        history.change(40)
        for step in range(5):
            history.change(history.dice.choice((0, 1, 3, 8)))
            time.sleep(SURE_S)
            disturb(world, history.dice)
            said = world.back_up()
            partial += sent(said) is not None
            wrong = world.differences()
            assert not wrong, "\n".join([f"{seed}.{step}", *history.done, *wrong])
    finally:
        history.close()
        rules.unlink()
    return partial


def as_line(rule: str) -> str:
    """A line of the excludes file for one of RULES."""
    sign = "+ " if rule.startswith("--include") else ""
    return sign + rule.partition("=")[2].format(top=SOURCE) + "\n"


def disturb(world: World, dice: random.Random) -> None:
    """Kill a backup somewhere, or discard; mostly nothing."""
    action = dice.choice(("kill", "discard", "", ""))
    if action == "discard" and world.store.snapshots(world.client.host):
        program = world.client.bin / "byteback-prune"
        run_program([program, "--discard", world.client.host])
    elif action == "kill":
        words = [os.fspath(word) for word in world.command()]
        running = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        time.sleep(dice.uniform(0, 3))
        running.send_signal(dice.choice((signal.SIGKILL, signal.SIGTERM)))
        running.wait()
        run_program(["pkill", "-KILL", "-u", world.client.user.name], check=False)
