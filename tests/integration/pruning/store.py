"""A store on a small volume of its own, and what fills it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from byteback.model.snapshot import format_snapshot_name
from tests.integration.conftest import ServerUser
from tests.integration.programs import Outcome, run_program
from tests.waiting import wait_until

BTRFS_STAND_IN = Path("/usr/local/sbin/btrfs")
MIB = 2**20
FULL = ("--prune", "--minpercent", "99.5", "--maxpercent", "100")  # always short
FORCE = ("--prune-force",)
as_root_or_user = pytest.mark.parametrize(
    "as_root", [True, False], ids=["root", "user"]
)


class PruneStore:
    """A store on a small volume, and byteback-prune as this server has it."""

    def __init__(self, user: ServerUser, bin_directory: Path) -> None:
        self.user = user
        self.root = user.home
        self.program = bin_directory / "byteback-prune"
        state = self.root / ".byteback"
        state.mkdir(mode=0o700, exist_ok=True)
        os.chown(state, user.uid, user.gid)

    def as_user(self, *argv: str | Path) -> Outcome:
        return run_program([*self.as_user_words, *argv])

    def prune(self, *options: str, as_root: bool = True) -> Outcome:
        become = [] if as_root else self.as_user_words
        return run_program([*become, self.program, *options], check=False)

    def no_room(self) -> str | None:
        """The words of byteback-status' alarm that room stays short."""
        program = self.program.with_name("byteback-status")
        found = json.loads(run_program([program, "--json"]).stdout)["alarms"]
        said = [a["message"] for a in found if a["kind"] == "no-room"]
        return said[0] if said else None

    def client(self, host: str) -> Path:
        directory = self.root / host
        self.as_user("mkdir", directory)
        self.as_user("btrfs", "subvolume", "create", directory / "current")
        return directory

    def snapshot(
        self, host: str, days_old: int, megabytes: int = 0, names: int = 0
    ) -> Path:
        """A read-only snapshot of the store's user that alone holds what is in it."""
        time = datetime.now(UTC) - timedelta(days=days_old)
        path = self.root / host / format_snapshot_name(time)
        self.as_user("btrfs", "subvolume", "create", path)
        if megabytes:
            (path / "data").write_bytes(os.urandom(megabytes * MIB))
        for number in range(names):
            (path / long_name(number)).touch()
        self.as_user("btrfs", "property", "set", "-t", "subvol", path, "ro", "true")
        return path

    def history(
        self, host: str, *days_old: int, megabytes: int = 0, names: int = 0
    ) -> list[Path]:
        self.client(host)
        made = [self.snapshot(host, days, megabytes, names) for days in days_old]
        self.commit()
        return made

    def commit(self) -> None:
        run_program(["btrfs", "filesystem", "sync", self.root])

    def free_percent(self) -> float:
        self.commit()
        view = os.statvfs(self.root)
        return 100 * view.f_bavail / view.f_blocks

    def generation(self) -> str:
        shown = run_program(["btrfs", "subvolume", "find-new", self.root, "9999999"])
        return shown.stdout

    @property
    def as_user_words(self) -> list[str | Path]:
        """The words before a command line that make the store's user run it."""
        ids = ["--reuid", str(self.user.uid), "--regid", str(self.user.gid)]
        return ["setpriv", *ids, "--clear-groups", "env", f"HOME={self.root}"]


def stand_in(path: Path, condition: str, action: str) -> None:
    """Make a btrfs that does ``action`` for some calls and else the real thing."""
    path.write_text(
        f'#!/bin/sh\ncase "$*" in {condition}) {action} ;; esac\n'
        'exec /usr/bin/btrfs "$@"\n'
    )
    path.chmod(0o755)


def wait_for_orphans() -> None:
    """Wait until the step is done that a killed program had asked for."""
    wait_until(lambda: "btrfs" not in set(running_programs()))


def running_programs() -> Iterator[str]:
    """The names of all processes that have not ended."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                yield process.name()


def limits_above(percent: float, wanted: float) -> tuple[str, ...]:
    """Limits by which ``percent`` free is a shortage, to be raised by ``wanted``."""
    low, high = percent + wanted / 2, percent + wanted
    return ("--minpercent", f"{low:.2f}", "--maxpercent", f"{high:.2f}")


def long_name(number: int) -> str:
    """A name that takes much metadata, and no data at all."""
    return f"{number:0200d}"


def fill_with_names(directory: Path) -> None:
    """Make empty files until there is no room for one more."""
    try:
        for number in itertools.count():
            os.mknod(directory / long_name(number))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
