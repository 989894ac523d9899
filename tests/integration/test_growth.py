"""A client that suddenly sends much more, or a disc that is full: through real ssh."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from byteback import locking
from byteback.model.snapshot import format_snapshot_name
from tests.integration.conftest import EnrolledClient
from tests.integration.programs import Outcome, run_program
from tests.integration.pruning.store import fill_with_names
from tests.waiting import PATIENCE_S, wait_until

SOURCE = Path("/srv/source")
SERVER_TOML = Path("/etc/byteback/server.toml")
LEDGER = Path(".byteback/ledger.sqlite")
DAY_S = 86400
MIB = 2**20


@pytest.fixture
def volume_size() -> int:
    """One GiB: one percent of it is written in no time."""
    return 1 << 30


@dataclass(frozen=True)
class Scene:
    """A client, its server's store, and another host's history in it."""

    client: EnrolledClient

    def back_up(self, *options: str) -> Outcome:
        program = self.client.bin / "byteback-backup"
        words = ("--source", SOURCE, "--retry-delay", "3")
        return run_program([program, *words, *options], check=False)

    def prune(self, *options: str) -> Outcome:
        return run_program([self.client.bin / "byteback-prune", *options], check=False)

    def prune_when_free(self, *options: str) -> Outcome:
        """Prune after the run that a session may have started."""
        with locking.hold_directory(self.client.store, wait_s=PATIENCE_S):
            pass
        return self.prune(*options)

    def ballast(self, free_percent: float) -> None:
        """Leave so much room, by a file that is nobody's backup."""
        self.commit()
        view = os.statvfs(self.client.store)
        size = view.f_bavail - int(view.f_blocks * free_percent / 100)
        with (self.client.store / "ballast").open("ab") as file:
            for _ in range(size * view.f_frsize // MIB):
                file.write(os.urandom(MIB))
        self.commit()

    def other_history(self, megabytes: int, *days_old: int) -> list[Path]:
        """Snapshots of another host, each with so much of its own."""
        user = self.client.user
        directory = self.client.store / "other"
        directory.mkdir()
        names = ["current"]
        for days in days_old:
            moment = datetime.now(UTC) - timedelta(days=days)
            names.append(format_snapshot_name(moment))
        for name in names:
            run_program(["btrfs", "subvolume", "create", directory / name])
            if name != "current":
                (directory / name / "data").write_bytes(os.urandom(megabytes * MIB))
            run_program(["chown", "-R", f"{user.uid}:{user.gid}", directory / name])
        os.chown(directory, user.uid, user.gid)
        self.prune("--prune")  # closes them
        return [directory / name for name in names[1:]]

    def a_day_passes(self) -> None:
        """Make all that the client has sent until now a day older."""
        with closing(sqlite3.connect(self._state / "ledger.sqlite")) as ledger:
            ledger.execute(
                "UPDATE transfer SET started = started - :day, ended = ended - :day",
                {"day": DAY_S},
            )
            ledger.execute("UPDATE snapshot SET made = made - ?", (DAY_S,))
            ledger.commit()
        for path in sorted(self.client.current.parent.glob("20*")):
            moment = datetime.strptime(path.name, "%Y-%m-%dT%H:%M%z")
            older = format_snapshot_name(moment - timedelta(days=1))
            path.rename(path.with_name(older))

    def free_percent(self) -> float:
        self.commit()
        view = os.statvfs(self.client.store)
        return 100 * view.f_bavail / view.f_blocks

    def snapshots(self) -> list[str]:
        return sorted(path.name for path in self.client.current.parent.glob("20*"))

    def commit(self) -> None:
        run_program(["btrfs", "filesystem", "sync", self.client.store])

    @property
    def _state(self) -> Path:
        return self.client.store / ".byteback"


@pytest.fixture
def scene(enrolled_client: EnrolledClient) -> Iterator[Scene]:
    """A client with one small backup of a day ago; its line carries 5 MB a second."""
    SOURCE.mkdir()
    (SOURCE / "small").write_bytes(os.urandom(MIB))
    flags = enrolled_client.configuration / "rsync_flags"
    flags.write_text("--bwlimit=5M\n--no-compress\n--whole-file\n")
    made = Scene(enrolled_client)
    try:
        assert made.back_up().status == 0
        made.a_day_passes()
        yield made
    finally:
        shutil.rmtree(SOURCE)
        SERVER_TOML.unlink(missing_ok=True)


def grow(megabytes: int, name: str = "large") -> None:
    (SOURCE / name).write_bytes(os.urandom(megabytes * MIB))


def test_a_suddenly_larger_backup_costs_nobody_history(scene: Scene) -> None:
    history = scene.other_history(40, 1, 10, 20)
    scene.ballast(8)
    grow(100)
    stopped = scene.back_up("--retry-number", "0")
    assert stopped.status == 14, stopped
    assert "suddenly larger" in stopped.stderr
    assert f"--approve {scene.client.host}" in stopped.stderr
    assert scene.free_percent() > 2.5, "stopped before others want for room"
    assert len(scene.snapshots()) == 1

    pruned = scene.prune_when_free("--prune", "--verbose")
    assert all(path.exists() for path in history)
    assert f"host '{scene.client.host}' has taken" in pruned.stderr
    # It may come as often as it likes.
    for number in range(9, 4, -1):
        grow(20, f"first-{number}")  # sent before what was sent already
        assert scene.back_up("--retry-number", "0").status == 14
    assert scene.free_percent() > 2.5
    assert scene.prune_when_free("--prune").status == 0
    assert all(path.exists() for path in history)

    assert scene.prune("--discard", scene.client.host).status == 0
    assert scene.free_percent() > 7
    for path in SOURCE.glob("[fl]*"):
        path.unlink()
    assert scene.back_up().status == 0
    assert all(path.exists() for path in history)


def test_an_approved_backup_gets_its_room(scene: Scene) -> None:
    history = scene.other_history(100, 1, 10, 20, 30)
    scene.ballast(8)
    grow(100)
    assert scene.back_up("--retry-number", "0").status == 14
    approved = scene.prune("--approve", scene.client.host)
    assert approved.status == 0
    assert "pruning may delete history" in approved.stdout
    done = scene.back_up("--retry-number", "5")
    assert done.status == 0, done
    assert len(scene.snapshots()) == 2
    assert history[0].exists()
    assert not history[-1].exists()


def test_a_backup_of_the_usual_size_goes_on_while_another_is_blamed(
    scene: Scene,
) -> None:
    scene.other_history(40, 1, 10)
    with closing(sqlite3.connect(scene._state / "ledger.sqlite")) as ledger:
        for day in (3, 2, 1, 0):
            taken = 100 * MIB if day == 0 else MIB
            started = time.time() - day * DAY_S - 600
            ledger.execute(
                "INSERT INTO transfer (host, address, kind, started, data_taken)"
                " VALUES ('other', '', 'push', ?, ?)",
                (started, taken),
            )
            ledger.execute(
                "INSERT INTO snapshot (host, name, made, incomplete)"
                " VALUES ('other', '', ?, 0)",
                (started + 60,),
            )
        ledger.commit()
    scene.ballast(4)
    (SOURCE / "more").write_bytes(os.urandom(MIB))
    assert scene.back_up().status == 0
    assert "host 'other' has taken" in scene.prune_when_free("--prune", "-v").stderr


def test_a_discard_ends_the_transfer_that_is_under_way(scene: Scene) -> None:
    grow(100)
    flags = scene.client.configuration / "rsync_flags"
    usual = flags.read_text()
    flags.write_text(usual.replace("5M", "1M"))  # it lasts until it is ended
    program = scene.client.bin / "byteback-backup"
    words = ("--source", SOURCE, "--retry-number", "0")
    with subprocess.Popen([program, *words], stderr=subprocess.PIPE) as running:
        large = scene.client.current / "srv" / "source" / "large"
        wait_until(large.exists)
        outcome = scene.prune("--discard", scene.client.host)
        running.communicate(timeout=PATIENCE_S)
        assert running.returncode != 0
    assert outcome.status == 0, outcome
    assert not large.exists()
    flags.write_text(usual)
    (SOURCE / "large").unlink()
    assert scene.back_up().status == 0


def test_a_full_disc_is_pruned_at_once_and_the_retry_succeeds(scene: Scene) -> None:
    history = scene.other_history(100, 1, 10, 20, 30)
    (SOURCE / "more").write_bytes(os.urandom(8 * MIB))
    scene.ballast(0)
    done = scene.back_up("--retry-number", "10")
    assert done.status == 0, done
    assert not history[-1].exists()
    assert history[0].exists()
    assert len(scene.snapshots()) == 2


def lose_ledger(scene: Scene) -> None:
    (scene._state / "ledger.sqlite").write_bytes(b"rubbish " * 1000)


def test_a_lost_ledger_stops_no_usual_backup(scene: Scene) -> None:
    history = scene.other_history(100, 1, 10, 20, 30)
    lose_ledger(scene)
    scene.ballast(4)
    (SOURCE / "more").write_bytes(os.urandom(4 * MIB))
    done = scene.back_up("--retry-number", "10")
    assert done.status == 0, done
    scene.prune_when_free("--prune")
    assert history[0].exists()
    assert not history[-1].exists(), "a full disc does not stay full"
    assert (scene._state / "ledger.damaged").exists()
    assert (scene._state / "ledger.sqlite").exists()


def test_a_large_backup_costs_nobody_history_without_a_ledger(scene: Scene) -> None:
    """As on the day on which an old store is upgraded."""
    history = scene.other_history(40, 1, 10, 20, 30)
    lose_ledger(scene)
    scene.ballast(8)
    grow(100)
    for _ in range(3):
        done = scene.back_up("--retry-number", "2")
        assert done.status in {12, 14, 75}, done
        scene.prune_when_free("--prune")
    assert scene.free_percent() > 2.5
    assert all(path.exists() for path in history)
    (SOURCE / "large").unlink()
    assert scene.prune("--discard", scene.client.host).status == 0
    assert scene.back_up().status == 0
    assert all(path.exists() for path in history)


def test_a_wiped_client_is_told_and_its_history_kept(scene: Scene) -> None:
    for number in range(300):
        (SOURCE / f"file-{number}").touch()
    for _ in range(3):
        assert scene.back_up().status == 0
        assert scene.prune("--prune").stderr == ""
        scene.a_day_passes()
    for path in SOURCE.glob("file-*"):
        path.unlink()
    assert scene.back_up().status == 0
    assert "left of usually 3" in scene.prune("--prune", "--verbose").stderr
    listed = scene.prune("--list").stdout.splitlines()
    assert sum("its host is suddenly smaller" in line for line in listed) >= 3
    assert scene.prune("--approve", scene.client.host).status == 0
    assert "suddenly smaller" not in scene.prune("--list").stdout


def test_what_a_push_takes_is_recorded(scene: Scene) -> None:
    """Growth is judged by it, and bwrap ends without waiting for its children."""
    grow(30)
    assert scene.back_up().status == 0
    with closing(sqlite3.connect(scene.client.store / LEDGER)) as ledger:
        query = "SELECT data_taken, bytes_written, bytes_received FROM transfer"
        *_, (taken, written, received) = ledger.execute(query)
    assert 30 * MIB <= taken <= written < 33 * MIB
    assert 30 * MIB < received < 33 * MIB


def test_pruning_meanwhile_hides_nothing(scene: Scene) -> None:
    """What others' history gives back is not what the client did not take."""
    history = scene.other_history(40, *range(10, 90, 10))
    SERVER_TOML.write_text("growth_percent = 4\n")
    flags = scene.client.configuration / "rsync_flags"
    flags.write_text("--bwlimit=3M\n--no-compress\n--whole-file\n")
    scene.ballast(5.4)
    grow(160)
    with pruning_all_the_time(scene):
        done = scene.back_up("--retry-number", "0")
    left = [path for path in history if path.exists()]
    assert done.status == 14, (done, len(left))
    assert "suddenly larger" in done.stderr
    assert len(left) >= len(history) - 2, left


@contextmanager
def pruning_all_the_time(scene: Scene) -> Iterator[None]:
    """As a timer does it on a server where more than a minute is at stake."""
    loop = f"while :; do {scene.client.bin / 'byteback-prune'} --prune; sleep 0.5; done"
    with subprocess.Popen(["sh", "-c", loop], start_new_session=True) as running:
        try:
            yield
        finally:
            os.killpg(running.pid, signal.SIGKILL)


# --- A disc that is full -----------------------------------------------------------


def fill_up(scene: Scene, *, names: bool = False) -> None:
    """Leave next to nothing, and let the client take it all the same."""
    assert scene.prune("--approve", scene.client.host).status == 0
    scene.ballast(0.3)
    if names:
        places = [scene.client.store / f"names-{number}" for number in range(3)]
        for place in places:
            place.mkdir()
        for place in places:  # what a commit gives back, too
            fill_with_names(place)
            scene.commit()
    grow(30)


def test_a_client_hears_that_old_snapshots_make_room(scene: Scene) -> None:
    history = scene.other_history(40, 1, 10, 20)
    fill_up(scene)
    # Keeps all pruning away.
    with locking.hold_directory(scene.client.store, wait_s=PATIENCE_S):
        full = scene.back_up("--retry-number", "0")
    assert full.status == 75, full
    assert "the server's disc is full" in full.stderr
    assert "it deletes old snapshots now" in full.stderr
    assert all(path.exists() for path in history)
    # The next attempt has room made for it, by no timer.
    done = scene.back_up("--retry-number", "5")
    assert done.status == 0, done
    # As many of the oldest as it took.
    assert history[0].exists()
    assert not history[-1].exists()


def test_a_client_hears_that_nothing_may_go(scene: Scene) -> None:
    history = scene.other_history(1, 1, 3)
    fill_up(scene)
    full = scene.back_up("--retry-number", "0")
    assert full.status == 75, full
    assert "no snapshot that it may delete: waiting does not help" in full.stderr
    assert "--exclude" in full.stderr
    for options in ((), ("--verbose",)):  # without a terminal, too
        told = scene.prune_when_free("--prune", *options)
        assert told.status == 14, told
        assert "no snapshot may be deleted" in told.stderr
        assert "--discard" in told.stderr
    assert all(path.exists() for path in history)
    # What it says helps.
    (scene.client.store / "ballast").unlink()
    scene.commit()
    assert scene.back_up("--retry-number", "0").status == 0


def test_what_cannot_be_recorded_starts_pruning_too(scene: Scene) -> None:
    """The transfer does not begin, and so no transfer's end starts it."""
    history = scene.other_history(40, 1, 10)
    state = scene.client.store / ".byteback/hosts" / f"{scene.client.host}.state"
    state.unlink()
    fill_up(scene, names=True)
    full = scene.back_up("--retry-number", "0")
    assert full.status == 75, full
    assert "cannot record this transfer: No space left on device" in full.stderr
    assert "no room for more names" in full.stderr
    assert "it deletes old snapshots now" in full.stderr
    wait_until(lambda: not history[1].exists())
