"""A store whose snapshots are root's, and the user who was taken over."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from byteback.model.snapshot import format_snapshot_name
from byteback.server.snapshots import seal
from byteback.system.btrfs import subvolume
from tests.integration.conftest import CONFIGURATION, ServerUser
from tests.integration.programs import Outcome
from tests.integration.pruning.store import PruneStore

HOST = "a"
OTHER = "b"
CONTENT = b"what the client backed up"
STAT = "user.rsync.%stat"


class SealedStore(PruneStore):
    """A store whose snapshots are of ``current``, as the server takes them."""

    def settings(self, text: str) -> None:
        CONFIGURATION.mkdir(mode=0o755, exist_ok=True)
        (CONFIGURATION / "server.toml").write_text(text)

    def client(self, host: str) -> Path:
        directory = super().client(host)
        with become(self.user):
            (directory / "current" / "etc").mkdir()
            (directory / "current" / "etc" / "file").write_bytes(CONTENT)
        return directory

    def snapshot(
        self, host: str, days_old: int, megabytes: int = 0, names: int = 0
    ) -> Path:
        assert (megabytes, names) == (0, 0)
        time = datetime.now(UTC) - timedelta(days=days_old)
        path = self.root / host / format_snapshot_name(time)
        with become(self.user):
            (path.parent / "current" / "age").write_text(str(days_old))
        self.as_user(
            *("btrfs", "subvolume", "snapshot", "-r", path.parent / "current", path)
        )
        return path

    def tick(self, *options: str) -> Outcome:
        """A run of root's that finds enough space."""
        return self.prune("--prune", "--verbose", *options)

    def sealed(self, host: str, *days_old: int) -> list[Path]:
        """A client with sealed snapshots, the newest first."""
        self.client(host)
        made = [self.snapshot(host, days) for days in sorted(days_old, reverse=True)]
        assert self.tick().status == 0
        assert all(map(is_sealed, made))
        return made[::-1]


@contextlib.contextmanager
def become(user: ServerUser) -> Iterator[None]:
    """Be the store's user where files are concerned."""
    groups = os.getgroups()
    os.setgroups([user.gid])
    os.setegid(user.gid)
    os.seteuid(user.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def mark_of(path: Path) -> str | None:
    try:
        return os.getxattr(path, seal.ATTRIBUTE, follow_symlinks=False).decode()
    except OSError:
        return None


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield fd
    finally:
        os.close(fd)


def is_sealed(path: Path) -> bool:
    """Root's, read-only, known to root by its own name, and whole."""
    with opened(path) as fd:
        return (
            os.fstat(fd).st_uid == 0
            and subvolume.is_read_only(fd)
            and seal.read_claim(fd) == f"{path.parent.name}/{path.name}"
            and (path / "etc" / "file").read_bytes() == CONTENT
        )


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
