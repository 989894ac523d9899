"""A volume for the decisions of pruning, where time and space obey."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from byteback.errors import ToolError
from byteback.model.free_space import FreeSpace, Limits, MetadataRoom
from byteback.model.snapshot import format_snapshot_name
from byteback.server.prune import repair, report, run
from byteback.server.store import marks, reserve
from byteback.server.store.layout import Store
from byteback.system.btrfs import commands

NOW = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)
# What each run leaves for byteback-status, and nothing else where all is well.
RUN_NOTES = {"ledger.sqlite", marks.PRUNED} | (
    {marks.SEALED} if os.geteuid() == 0 else set()
)
LIMITS = Limits(5, 10)
KEY_LINE = (
    'restrict,command="/usr/bin/byteback-receive --host a" ssh-ed25519 '
    "AAAAC3NzaC1lZDI1NTE5AAAAIJ1J7Ln0zqk4yN1sPwy0Qh6D2E8yqz0wYzR2l4nV8m3T a\n"
)


class Volume:
    """A pretended volume: each snapshot holds ``each`` percent of it, when deleted.

    Space comes back when somebody waits, unless ``is_slow``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root)
        self.store.state.mkdir()
        self.free = 0
        self.pending = 0
        self.each = 2
        self.is_slow = False
        self.waits = 0
        self.undeletable: set[str] = set()
        self.deleted: list[str] = []
        self.sealed: set[Path] = set()  # read-only, whatever the caller's rights
        self.closed: list[str] = []
        self.metadata: MetadataRoom | None = None
        self.compacted: list[str] = []
        self.plain: set[Path] = set()  # directories that are no subvolumes

    def add(self, host: str, *days_old: int) -> list[Path]:
        (self.root / host / "current").mkdir(parents=True, exist_ok=True)
        made = []
        for days in days_old:
            name = format_snapshot_name(NOW - timedelta(days=days))
            made.append(self.root / host / name)
            made[-1].mkdir()
            self.sealed.add(made[-1])
        return made

    def free_space(self, path: Path) -> FreeSpace:
        assert path == self.root
        return FreeSpace(self.free, 100, self.metadata)

    def wait(self, path: Path, timeout_s: float) -> bool:
        assert path == self.root
        assert timeout_s > 0
        self.waits += 1
        if self.is_slow:
            return False
        self.free, self.pending = self.free + self.pending, 0
        return True

    def delete(
        self,
        path: Path,
        make_room: Callable[[], object],
        check: Callable[[int], bool],
    ) -> None:
        assert callable(make_room)
        assert callable(check)
        assert self.pending == 0, "the space of the one before is not back yet"
        if path.name in self.undeletable:
            raise ToolError("btrfs failed", details=["ERROR: Operation not permitted"])
        path.rmdir()
        self.deleted.append(f"{path.parent.name}/{path.name[:10]}")
        self.pending += self.each

    def close(self, path: Path, read_only: bool) -> None:
        assert read_only
        self.sealed.add(path)
        self.closed.append(path.name)

    def may_write(self, path: str, mode: int) -> bool:
        assert mode == os.W_OK
        return Path(path) not in self.sealed

    def is_subvolume(self, path: Path) -> bool:
        return path.is_dir() and not path.is_symlink() and path not in self.plain

    def compact(self, path: Path, kind: str) -> bool:
        assert path == self.root
        self.compacted.append(kind)
        return True

    def pruner(self, order: str = report.AGE) -> run.Pruner:
        return run.Pruner(self.store, order, now=lambda: NOW)


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Volume:
    made = Volume(tmp_path)
    monkeypatch.setattr(commands, "free_space", made.free_space)
    monkeypatch.setattr(commands, "wait_for_deletions", made.wait)
    monkeypatch.setattr(commands, "delete_on_full_disc", made.delete)
    monkeypatch.setattr(commands, "set_read_only", made.close)
    monkeypatch.setattr(commands, "compact", made.compact)
    monkeypatch.setattr(reserve, "provide", lambda _: True)
    monkeypatch.setattr(
        repair, "os", SimpleNamespace(**{**vars(os), "access": made.may_write})
    )
    monkeypatch.setattr(commands, "is_subvolume", made.is_subvolume)
    return made
