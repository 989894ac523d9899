"""Records which file system is the store, and what time it is there.

By these all programs tell another file system in its place, and a clock that jumped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from byteback.server.setup.steps import Outcome, StepRunner, found, warning
from byteback.server.store import clock, presence
from byteback.server.store.layout import Store
from byteback.system.btrfs.identity import identify


def check_mark(store: Store, *, is_named: bool) -> None:
    """Raise StoreError if something else is mounted where the store should be.

    What the administrator names now is the store from now on.
    """
    if not is_named and presence.read_mark() is not None:
        presence.check_mounted(store)


def provide_mark(store: Store, runner: StepRunner) -> Iterator[Outcome]:
    """Record the store's mark, by which all programs tell it from a bare mount point.

    The caller has seen to it that the store is mounted.
    """
    identity = identify(store.root)
    if identity is None:
        return
    if presence.read_mark() == identity:
        yield found(f"the store is known by its file system, {identity.filesystem}")
        return
    yield runner.do(
        f"record the store's file system, {identity.filesystem}, in {presence.PATH}",
        lambda: presence.write_mark(identity),
    )


def note_clock(store: Store, runner: StepRunner) -> Iterator[Outcome]:
    """Take the first reading of the clock, before there is anything to prune (D47)."""
    if runner.dry_run:
        return
    jump_s = clock.look(store, time.time())
    if jump_s is not None:
        yield warning(f"{clock.describe(jump_s)}: nothing is pruned until it is right")
