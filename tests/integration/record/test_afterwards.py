"""After a backup of changes alone the server looks at what has changed, and no more."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from byteback.server.accounting import file_count, ledger
from byteback.server.search import added_names, indexing, run, walk
from tests.integration.programs import run_program
from tests.integration.record.histories import RULES, History
from tests.integration.record.test_backups import (
    SOURCE,
    SURE_S,
    World,
    as_line,
    sent,
)
from tests.integration.record.test_backups import old_world as old_world  # noqa: PLC0414
from tests.integration.record.test_backups import world as world  # noqa: PLC0414

pytestmark = pytest.mark.integration

PARTIAL_STEPS, MOST_STEPS = 3, 20  # changed hard links have everything compared
PATTERNS = [
    *(f"/**/{name}" for name in ("a", "b", "x", "y", "z", "in", "deep", "later*")),
    *(f"{SOURCE}/**/{name}" for name in ("c", "file", "?", "*skip", "e1", "nl*")),
    *(f"{SOURCE}/{name}/**/x" for name in ("d", "new", "a", "sp ace")),
    "/**/{a,b,c,d1,x,y,z,out,inc,none}",
]


@dataclass
class Aftermath:
    """What pruning does after a backup, with its walks counted."""

    world: World
    counted: list[str] = field(default_factory=list)  # trees, by walking through
    indexed: list[list[str]] = field(default_factory=list)  # and all trees together
    _days: int = 0

    def snapshot(self) -> str:
        """Take a snapshot of its own, for one a minute can be taken by the server."""
        host, store = self.world.client.host, self.world.store
        self._days += 1
        name = f"2026-02-{self._days:02d}T00:00+0000"
        target = store.host_directory(host) / name
        words = ["btrfs", "-q", "subvolume", "snapshot", "-r"]
        run_program([*words, store.current(host), target])
        ledger.add_snapshot(store, host, name, incomplete=False, files=None)
        return name

    def look(self) -> None:
        """Do both."""
        self.count()
        self.index()

    def index(self) -> None:
        """Index what is new; a search must find the same without."""
        host, store = self.world.client.host, self.world.store
        indexing.index_new(store)
        chains, index = run.read_history(store, host)
        assert index is not None
        assert set(index.covered) == set(store.trees(host))
        for pattern in PATTERNS:
            with_index, without = (
                list(
                    run.find(
                        *(store, host, "*", "copies", [pattern]),
                        current_is_whole=True,
                        chains=chains,
                        index=one,
                    )
                )
                for one in (index, None)
            )
            assert with_index == without, pattern

    def count(self) -> None:
        """Count what is new; each number must be what a walk finds."""
        host, store = self.world.client.host, self.world.store
        file_count.count_new(store)
        assert not ledger.uncounted(store)
        for name, names in ledger.counted(store, host, 0, 1):
            assert names == names_below(store.host_directory(host) / name), name


def names_below(top: Path) -> int:
    """How many names there are, by a walk of this test's own."""
    return sum(len(names) + len(files) for _, names, files in os.walk(top))


@pytest.fixture
def aftermath(old_world: World, monkeypatch: pytest.MonkeyPatch) -> Aftermath:
    """A client that was backed up, counted and indexed."""
    made = Aftermath(old_world)
    real = file_count.count_names

    def counted(directory: str, timeout_s: float) -> int | None:
        made.counted.append(Path(directory).name)
        return real(directory, timeout_s)

    monkeypatch.setattr(file_count, "count_names", counted)
    real_walk = walk.directories

    def walked(search: walk.Search) -> Iterator[tuple[str, Collection[str]]]:
        made.indexed.append(list(search.trees))
        return real_walk(search)

    monkeypatch.setattr(walk, "directories", walked)
    # After that everything is walked through, and a busy machine may stand still.
    monkeypatch.setattr(added_names, "MAX_SECONDS", 90.0)
    made.look()
    made.counted.clear()
    made.indexed.clear()
    return made


def change_nothing() -> None:
    """The machine of a person on holiday."""


def add_and_remove() -> None:
    """Names come and go, with directories and without."""
    (SOURCE / "a").unlink()
    (SOURCE / "new" / "deep").mkdir(parents=True)
    (SOURCE / "new" / "deep" / "file").write_text("new")
    shutil.rmtree(SOURCE / "e")
    (SOURCE / "d" / "z").write_text("new")


def change_types() -> None:
    """A directory with something in it becomes a file, and a file a directory."""
    (SOURCE / "d" / "below" / "below").mkdir(parents=True)
    (SOURCE / "d" / "below" / "below" / "x").write_text("x")
    shutil.rmtree(SOURCE / "new")
    (SOURCE / "new").write_text("no directory any more")
    (SOURCE / "d" / "z").unlink()
    (SOURCE / "d" / "z" / "in").mkdir(parents=True)
    (SOURCE / "a" / "b").mkdir(parents=True)
    (SOURCE / "a" / "b" / "c").symlink_to("nowhere")


def add_odd_names() -> None:
    """Names that rsync's log does not show as they are."""
    for name in ("back\\#012slash", "\udcff", " x "):
        (SOURCE / name / name).mkdir(parents=True)
        (SOURCE / name / name / "x").write_text("x")


CHANGES = [change_nothing, add_and_remove, change_types, add_odd_names, change_nothing]


def test_what_has_changed_is_looked_at_alone(aftermath: Aftermath) -> None:
    for change in CHANGES:
        time.sleep(SURE_S)
        change()
        assert sent(aftermath.world.back_up()) is not None
        aftermath.snapshot()
        aftermath.look()
        assert (aftermath.counted, aftermath.indexed) == ([], []), change
    # It may be two lines in the log, which is read as well as it goes.
    (SOURCE / "line\nfeed" / "line\nfeed").mkdir(parents=True)
    (SOURCE / "line\nfeed" / "line\nfeed" / "x").write_text("x")
    assert sent(aftermath.world.back_up()) is not None
    aftermath.snapshot()
    aftermath.look()


def by_hand(world: World) -> None:
    """An administrator replaces one name by another."""
    (world.current / "d" / "y").unlink()
    (world.current / "d" / "other").write_text("not of the client")


def full(world: World) -> None:
    """Everything is compared."""
    world.back_up("--full")


def lose_the_journal(world: World) -> None:
    """It is only a file."""
    world.store.lock_path(world.client.host).with_suffix(".journal").write_text("{")


def discard(world: World) -> None:
    """Current becomes a copy of a snapshot."""
    run_program([world.client.bin / "byteback-prune", "--discard", world.client.host])


def test_everything_is_walked_through_after(aftermath: Aftermath) -> None:
    world = aftermath.world
    for number, event in enumerate((by_hand, full, lose_the_journal, discard)):
        event(world)
        (SOURCE / "d" / f"later-{number}").write_text("changed, too")
        world.back_up()
        name = aftermath.snapshot()
        aftermath.counted.clear()
        aftermath.indexed.clear()
        aftermath.look()
        assert aftermath.counted == [name], event
        assert len(aftermath.indexed) == 1, event


def test_histories_are_counted_right(aftermath: Aftermath) -> None:
    world, partial = aftermath.world, 0
    aside = SOURCE / "exc" / "aside"
    aside.mkdir(parents=True)
    rules = world.client.configuration / "excludes"
    rules.write_text("".join(as_line(rule) for rule in RULES))
    # What is mounted may have everything compared each time.
    history = History(SOURCE, aside, 7, with_mounts=False)
    try:
        history.change(40)
        for step in itertools.count():
            history.change(history.dice.choice((0, 1, 3, 8)))
            time.sleep(SURE_S)
            partial += sent(world.back_up()) is not None
            aftermath.snapshot()
            aftermath.look()
            if partial >= PARTIAL_STEPS or step >= MOST_STEPS:
                break
    finally:
        history.close()
        rules.unlink()
    assert partial >= PARTIAL_STEPS
