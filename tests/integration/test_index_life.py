"""Whatever happens to a store, a search finds the same with an index and without."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from byteback.errors import BytebackError
from byteback.model.free_space import Limits
from byteback.model.snapshot import CURRENT
from byteback.server.prune import discard
from byteback.server.prune import run as prune
from byteback.server.search import indexing, name_index
from byteback.server.snapshots import take
from byteback.server.store import settings, state
from byteback.server.store.layout import Store
from byteback.server.store.state import Transfer
from byteback.server.transfer import runner, sessions
from byteback.system import privilege
from byteback.system.btrfs import commands
from byteback.wire import requests
from tests.integration.conftest import CONFIGURATION, ServerUser
from tests.integration.programs import run_program
from tests.integration.test_name_index import covered, find
from tests.integration.test_search import HOST, NAMES, change

SEEDS = 6
STEPS = 40
SEARCHES = [["/**/a"], ["/**/[bc]*"], ["/a/**/{a,b}", "/a/.h"], ["/**/.h"]]
PUSH = requests.Push(("--server", "-logDtpre.iLsfxCIvu", ".", "."))


class Life:
    """A client's store, and all that can happen to it, by dice."""

    def __init__(self, store: Store, seed: int, patch: pytest.MonkeyPatch) -> None:
        self.store = store
        self.chance = random.Random(seed)  # noqa: S311 # dice, no secret
        self.time = datetime(2026, 1, 1, tzinfo=UTC)
        self.patch = patch
        self.boot = store.state / "boot"
        patch.setattr(state, "BOOT_ID", self.boot)
        # An index that took long is not made anew soon: a busy machine may stand still.
        patch.setattr(name_index, "CHEAP_S", 90.0)
        self.restart()
        self.steps: list[Callable[[], object]] = [
            *[self.push] * 4,
            *[self.complete] * 3,
            *[self.index] * 4,
            *[self.tick] * 2,
            *(self.cut_off, self.power_cut, self.restart, self.commit, self.by_hand),
            *(self.meddle, self.delete, self.discard, self.lose, self.copy),
            self.lock_out,
        ]

    def restart(self) -> None:
        self.boot.write_text(str(uuid.UUID(int=self.chance.getrandbits(128))))

    def _change(self) -> None:
        for _ in range(self.chance.choice([1, 3, 10])):
            change(self.store.current(HOST), self.chance)

    def _push(self, status: int, fault: type[BaseException] | None = None) -> None:
        def run(*_: object, **__: object) -> runner.Measured:
            if fault is not None and self.chance.random() < 0.5:
                raise fault
            self._change()
            if self.chance.random() < 0.2:
                check(self)  # in the middle
                indexing.index_new(self.store)
            if fault is not None:
                raise fault
            return runner.Measured(status, 0, 0)

        self.patch.setattr(runner, "run", run)
        sessions.push(self.store, HOST, PUSH, "")

    def push(self) -> None:
        self._push(self.chance.choice([0, 0, 0, 23, 24]))

    def cut_off(self) -> None:
        self._push(self.chance.choice([30, -9, 12]))

    def power_cut(self) -> None:
        """As far as files can tell: the end was not written, and there is another."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sessions, "_record", lambda *_: None)
            try:
                self._push(0, KeyboardInterrupt)
            except KeyboardInterrupt:
                self.restart()

    def complete(self) -> None:
        self.time += timedelta(hours=self.chance.choice([7, 24, 24, -30]))
        take.take_snapshot(self.store, HOST, settings.load(HOST), now=lambda: self.time)

    def index(self) -> None:
        indexing.index_new(self.store)

    def tick(self) -> None:
        prune.Pruner(self.store).prune(Limits(0.001, 0.002))

    def commit(self) -> None:
        commands.sync(self.store.root)

    def by_hand(self) -> None:
        self._change()

    def meddle(self) -> None:
        """Somebody writes into a snapshot, and may leave it as it was found."""
        dated = self.store.snapshots(HOST)
        if not dated:
            return
        path = self.store.host_directory(HOST) / self.chance.choice(dated).name
        with privilege.raised():
            run_program(["btrfs", "property", "set", path, "ro", "false"])
            for _ in range(4):
                change(path, self.chance)
            if self.chance.random() < 0.7:
                run_program(["btrfs", "property", "set", path, "ro", "true"])

    def delete(self) -> None:
        names = [name for name in self.store.trees(HOST) if name != CURRENT]
        if names:
            path = self.store.host_directory(HOST) / self.chance.choice(names)
            with privilege.raised():
                run_program(["btrfs", "subvolume", "delete", path])

    def discard(self) -> None:
        discard.discard(self.store, HOST)

    def lose(self) -> None:
        """``current`` is gone; the next push makes it again."""
        path = self.store.current(HOST)
        if path.exists():
            with privilege.raised():
                run_program(["btrfs", "subvolume", "delete", path])

    def copy(self) -> None:
        """An administrator's own, which may be written to."""
        names = self.store.trees(HOST)
        if not names:
            return
        source = self.store.host_directory(HOST) / self.chance.choice(names)
        target = source.with_name(f"saved-{self.chance.randrange(3)}")
        if not target.exists():
            with privilege.raised():
                run_program(["btrfs", "subvolume", "snapshot", source, target])

    def lock_out(self) -> None:
        """A client sends a root directory of mode 0."""
        if not self.store.current(HOST).exists():
            return
        state.write(self.store, HOST, Transfer.RUNNING)
        self.store.current(HOST).chmod(0)
        self.chance.choice([self.index, self.commit])()
        state.write(self.store, HOST, Transfer.WHOLE)


def check(life: Life) -> None:
    if not life.store.trees(HOST):
        return
    wilder = [[f"/**/{life.chance.choice(NAMES)}"]]
    for texts in SEARCHES + wilder:
        scope = life.chance.choice(["newest", "versions", "copies"])
        entries = find(life.store, texts, scope)
        assert entries == find(life.store, texts, scope, with_index=False)


@pytest.fixture
def life(
    server_user: ServerUser,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Life]:
    CONFIGURATION.mkdir(mode=0o755, exist_ok=True)
    kept = CONFIGURATION / "server.toml"
    seed = request.param
    kept.write_text(f"sealed = {'true' if seed % 2 else 'false'}\n")
    try:
        with privilege.lowered_to(server_user.uid, server_user.gid):
            store = Store(server_user.home)
            monkeypatch.setattr(runner, "own_store", lambda: store)
            store.host_directory(HOST).mkdir()
            store.lock_path(HOST).parent.mkdir(parents=True)
            (store.state / "slots").mkdir()
            yield Life(store, seed, monkeypatch)
    finally:
        kept.unlink()


@pytest.mark.parametrize("life", range(SEEDS), indirect=True)
def test_an_index_never_changes_what_is_found(life: Life) -> None:
    life.push()
    done = []
    for _ in range(STEPS):
        step = life.chance.choice(life.steps)
        done.append(step.__name__)
        try:
            step()
        except BytebackError as error:
            done[-1] += f" ({error.message})"
        try:
            check(life)
        except AssertionError:
            print("\n".join(done))
            raise
    life.push()
    life.index()
    assert CURRENT in covered(life.store)
    check(life)
