"""Each rule by which the record is never wrong, tried where it alone decides."""

from __future__ import annotations

import mmap
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from byteback.client.record import keeper
from byteback.client.record.keeper import Rhythm
from byteback.client.record.walk import RACY_NS, Domain
from tests.integration.record.machine import Machine, mounted_disc
from tests.integration.record.proofs import SURE_S, assert_right, names, record

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("soon_sure")]

HOUR_NS = 3600 * 10**9


def test_unchanged_files_are_not_sent(machine: Machine) -> None:
    assert names(machine) == set()
    (machine.source / "a").write_text("other contents")
    assert names(machine) == {"./a"}


def test_young_changes_are_not_trusted(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is written again within one tick of the clock has the same ctime."""
    path = machine.source / "a"
    path.write_text("young")
    hold_clocks(monkeypatch, path.stat().st_ctime_ns + RACY_NS // 2)
    machine.back_up()
    assert names(machine) == {"./a"}


def hold_clocks(monkeypatch: pytest.MonkeyPatch, latest_ns: int) -> None:
    """Have the clocks stand still from then on, for a busy machine is late."""
    real, since_start = time.time_ns, time.clock_gettime_ns
    latest = latest_ns - keeper._clock_offset()
    monkeypatch.setattr("time.time_ns", lambda: min(real(), latest_ns))
    monkeypatch.setattr(
        "time.clock_gettime_ns", lambda clock: min(since_start(clock), latest)
    )


def test_future_changes_are_not_trusted(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time_ns", lambda: time.time() * 10**9 // 1 - HOUR_NS)
    machine.token = None
    machine.back_up()
    assert {"./a", "./d/x"} <= names(machine)


def test_writes_through_a_mapping_are_seen(machine: Machine) -> None:
    """Only the first write to a clean page sets the ctime."""
    path = machine.source / "a"
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[:1] = b"1"
        time.sleep(SURE_S)
        machine.back_up()
        mapping[:1] = b"2"
        assert_right(machine)


def test_clocks_of_whole_seconds_are_not_trusted(tmp_path: Path) -> None:
    with mounted_disc("ext4", "-I", "128") as disc:
        machine = Machine(disc, tmp_path)
        (machine.source / "a").write_text("a")
        record(machine)
        assert "./a" in names(machine)


@pytest.mark.parametrize(
    ("passed_ns", "step_ns"),
    [(0, -2 * HOUR_NS), (HOUR_NS, -10 * 10**9)],
    ids=["before the record", "a little"],
)
def test_a_clock_that_goes_back_compares_everything(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, passed_ns: int, step_ns: int
) -> None:
    real, since_start = time.time_ns, time.clock_gettime_ns
    monkeypatch.setattr("time.time_ns", lambda: real() + passed_ns + step_ns)
    monkeypatch.setattr(
        "time.clock_gettime_ns", lambda clock: since_start(clock) + passed_ns
    )
    round_ = machine.back_up()
    assert round_.partial is None
    assert "clock" in round_.reason


@pytest.mark.parametrize("number", range(1, 5))
def test_a_machine_that_stands_still_meanwhile_has_the_same_clock(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It has two, and one of them may be read a minute after the other."""
    calls = iter(range(1, 1000))
    before = keeper._clock_offset()

    def late(real_ns: int) -> int:
        return real_ns + (HOUR_NS // 60 if next(calls) >= number else 0)

    real, since_start = time.time_ns, time.clock_gettime_ns
    monkeypatch.setattr("time.time_ns", lambda: late(real()))
    monkeypatch.setattr("time.clock_gettime_ns", lambda clock: late(since_start(clock)))
    assert abs(keeper._clock_offset() - before) < 2 * keeper.MOMENT_NS


def test_a_clock_that_is_set_meanwhile_leaves_no_record(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time_ns

    def step() -> None:
        monkeypatch.setattr("time.time_ns", lambda: real() + HOUR_NS)

    assert not machine.back_up(meanwhile=step).is_usable


def test_another_start_of_the_machine_compares_everything(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "boot_id"
    other.write_text("another one\n")
    monkeypatch.setattr(keeper, "BOOT_ID", other)
    assert_right(machine, in_part=False)
    assert_right(machine)


@pytest.mark.parametrize("damage", ["cut", "one byte", "empty", "of another version"])
def test_a_damaged_record_compares_everything(machine: Machine, damage: str) -> None:
    path = machine.place.record
    data = bytearray(path.read_bytes())
    if damage == "one byte":
        data[len(data) // 3] ^= 1
    elif damage == "of another version":
        data = data.replace(b'"version": 1', b'"version": 2')
    path.write_bytes(data[: {"cut": len(data) // 2, "empty": 0}.get(damage, len(data))])
    (machine.source / "a").write_text("changed")
    assert_right(machine, in_part=False)
    machine.back_up()  # this one leaves a new record
    time.sleep(SURE_S)
    assert_right(machine)


def test_another_token_compares_everything(machine: Machine) -> None:
    (machine.target / "a").write_text("changed at the server")
    machine.token = "another"  # noqa: S105 # no password
    assert_right(machine, in_part=False)


def test_other_rules_compare_everything(machine: Machine) -> None:
    machine.selected = machine.selected.__class__(
        machine.selected.rules, "another one", Domain(["/"], [])
    )
    assert_right(machine, in_part=False)


def test_a_failed_partial_push_is_followed_by_a_full_one(machine: Machine) -> None:
    (machine.source / "a").write_text("changed")
    with keeper.Round(
        machine.selected, machine.token, None, place=machine.place
    ) as round_:
        assert round_.partial is not None
        round_.go_full("the line broke")
        assert round_.partial is None
        assert round_.watch_full() is None, "what the server has is not known"


def test_links_go_with_all_their_names(machine: Machine) -> None:
    """Renaming the directory of one of them changes no ctime of the file."""
    (machine.source / "e" / "linked").hardlink_to(machine.source / "d" / "x")
    record(machine)
    (machine.source / "e").rename(machine.source / "g")
    assert {"./d/x", "./g/linked"} <= names(machine)
    assert_right(machine)


@pytest.mark.parametrize("name", ["e", "f"], ids=["in between", "the last one"])
def test_links_in_a_directory_that_is_gone_count(machine: Machine, name: str) -> None:
    (machine.source / name / "linked").hardlink_to(machine.source / "d" / "x")
    record(machine)
    (machine.source / name).rename(machine.aside / name)
    assert "./d/x" in names(machine)


def test_links_in_a_new_directory_count(machine: Machine) -> None:
    (machine.aside / "new").mkdir()
    (machine.aside / "new" / "linked").hardlink_to(machine.source / "d" / "x")
    record(machine)
    (machine.aside / "new").rename(machine.source / "new")
    assert {"./d/x", "./new/linked"} <= names(machine)
    assert_right(machine)


def test_a_new_directory_goes_whole(machine: Machine) -> None:
    shutil.copytree(machine.source / "d", machine.aside / "old")
    time.sleep(SURE_S)
    (machine.aside / "old").rename(machine.source / "new")
    assert {"./new", "./new/x", "./new/sub", "./new/sub/z"} <= names(machine)
    assert_right(machine)


def test_directories_that_change_places_go_whole(machine: Machine) -> None:
    d, e, between = (machine.source / name for name in ("d", "e", "between"))
    d.rename(between)
    e.rename(d)
    between.rename(e)
    assert_right(machine)


@pytest.mark.parametrize("is_first", [True, False], ids=["full", "in part"])
def test_a_directory_that_is_away_meanwhile_goes_later(
    machine: Machine, is_first: bool
) -> None:
    """All below it has the ctimes of before when it is back."""
    directory, away = machine.source / "e", machine.aside / "e"
    if is_first:
        machine.token = None
    else:
        shutil.copytree(machine.source / "d", directory / "new")
        time.sleep(SURE_S)
    machine.back_up(
        meanwhile=lambda: move(directory, away),
        afterwards=lambda: move(away, directory),
    )
    assert machine.differences()
    assert_right(machine)
    time.sleep(SURE_S)
    assert_right(machine)


@pytest.mark.parametrize("is_first", [True, False], ids=["full", "in part"])
def test_a_directory_that_had_another_s_name_meanwhile_goes_later(
    machine: Machine, is_first: bool
) -> None:
    """The files that the other one had go from the server as well."""
    directory, away = machine.source / "e", machine.aside / "e"
    other = machine.aside / "other"
    other.mkdir()
    (other / "stranger").write_text("not there before, nor afterwards")
    time.sleep(SURE_S)
    if is_first:
        machine.token = None
    else:
        (directory / "w").write_text("changed")

    def exchange() -> None:
        directory.rename(away)
        other.rename(directory)

    def undo() -> None:
        directory.rename(other)
        away.rename(directory)

    machine.back_up(meanwhile=exchange, afterwards=undo)
    assert_right(machine)


def move(path: Path, target: Path) -> None:
    """Give a directory another place."""
    path.rename(target)


@pytest.mark.parametrize("is_first", [True, False])
def test_directories_that_rules_leave_out_are_not_walked(
    machine: Machine, is_first: bool
) -> None:
    if is_first:
        machine.place.record.unlink()
    scratch = machine.source / "exc" / "deep"
    scratch.mkdir(parents=True)
    for number in range(50):
        (scratch / str(number)).touch()
    machine.back_up()
    time.sleep(SURE_S)
    round_ = machine.back_up()
    assert round_._walked.names < 20
    assert not machine.differences()


def test_a_directory_stays_left_out_only_as_long_as_it_is_one(machine: Machine) -> None:
    scratch = machine.source / "exc"
    scratch.mkdir()
    machine.back_up()
    machine.back_up()
    scratch.rename(machine.source / "kept")
    assert_right(machine)


def test_too_many_changes_compare_everything(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("byteback.client.record.keeper.MAX_CHANGES", 3)
    for number in range(5):
        (machine.source / f"new{number}").touch()
    assert_right(machine, in_part=False)


def test_the_record_is_root_s_alone(machine: Machine) -> None:
    assert machine.place.record.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in machine.place.record.parent.iterdir()] == ["record"]


def test_an_interrupted_backup_leaves_the_record_as_it_was(machine: Machine) -> None:
    before = machine.place.record.read_bytes()

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        machine.back_up(meanwhile=stop)
    assert machine.place.record.read_bytes() == before
    assert [path.name for path in machine.place.record.parent.iterdir()] == ["record"]


def test_everything_is_compared_once_in_so_many_days() -> None:
    day = 86_400 * 10**9
    rhythm = Rhythm("client.example", 7)
    due = [rhythm.is_due(first * day, (first + 1) * day) for first in range(70)]
    assert due.count(True) == 10
    assert rhythm.is_due(0, 8 * day)
    others = [Rhythm(f"client{number}", 7) for number in range(70)]
    same_day = sum(other.is_due(20_000 * day, 20_001 * day) for other in others)
    assert 3 <= same_day <= 20, "they share the days of the week"


def test_a_change_that_the_record_missed_is_found(machine: Machine) -> None:
    (machine.target / "d" / "y").write_text("not what was sent")
    (machine.target / "stranger").write_text("never sent")
    (machine.target / "e" / "w").unlink()
    (machine.source / "a").write_text("known to have changed")
    with keeper.Round(
        machine.selected, machine.token, "to compare", place=machine.place
    ) as round_:
        watched = round_.watch_full()
        assert watched is not None
        for line in full_push(machine):
            watched.take(line)
        assert set(round_.missed(watched)) >= {"d/y", "stranger", "e/w"}


def full_push(machine: Machine) -> Iterator[str]:
    """The lines that rsync prints."""
    from tests.integration.record import reference

    words = [*reference.FULL, *machine.words]
    _, said = reference.run_rsync(words, machine.source, machine.target)
    yield from reference.changed_lines(said)


def test_what_changes_after_the_walk_is_not_missed(machine: Machine) -> None:
    with keeper.Round(
        machine.selected, machine.token, "to compare", place=machine.place
    ) as round_:
        watched = round_.watch_full()
        assert watched is not None
        (machine.source / "a").write_text("changed after the walk")
        (machine.source / "late").write_text("new after the walk")
        (machine.source / "d" / "y").unlink()
        for line in full_push(machine):
            watched.take(line)
        assert not round_.missed(watched)
