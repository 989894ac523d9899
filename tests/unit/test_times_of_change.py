"""A tree tells when its files were changed, also to a run that is not root's."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from byteback.model.growth import SNAPSHOT_NAME_S, Taken
from byteback.server.accounting import times_of_change
from byteback.server.accounting.times_of_change import NAME_BYTES

MIB = 2**20


@pytest.fixture
def changes(tmp_path: Path) -> list[float]:
    """Three files, changed one after the other: times from each to the next."""
    ends = []
    for place, size in enumerate((3 * MIB, 5 * MIB, 7 * MIB)):
        path = tmp_path / f"directory-{place}" / "file"
        path.parent.mkdir()
        path.write_bytes(os.urandom(size))
        os.utime(path, (0, 0))  # a time of the client's own says nothing
        time.sleep(0.05)
        # A snapshot's name tells a time of up to a minute before.
        ends.append(time.time() - SNAPSHOT_NAME_S)
        time.sleep(0.05)
    return ends


def test_changes_are_told_apart_by_the_snapshots_between_them(
    tmp_path: Path, changes: list[float]
) -> None:
    steps, since = times_of_change.measure(tmp_path, changes, 60)
    assert [step.taken.data for step in steps] == [7 * MIB, 5 * MIB]
    assert [step.taken.metadata for step in steps] == [2 * NAME_BYTES] * 2
    assert [step.seconds for step in steps] == pytest.approx(
        [changes[2] - changes[1], changes[1] - changes[0]]
    )
    assert since == Taken()
    _, since = times_of_change.measure(tmp_path, changes[:1], 60)
    assert since == Taken(12 * MIB, 4 * NAME_BYTES)


def test_names_of_one_file_count_once_and_links_lead_nowhere(
    tmp_path: Path, changes: list[float]
) -> None:
    tree = tmp_path / "directory-2"
    for number in range(3):
        (tree / f"name-{number}").hardlink_to(tree / "file")
    (tree / "link").symlink_to(tmp_path / "directory-0")
    _, since = times_of_change.measure(tmp_path, changes, 60)
    assert since.data == 7 * MIB


def test_what_is_not_reached_in_time_is_left_out(
    tmp_path: Path, changes: list[float]
) -> None:
    steps, _ = times_of_change.measure(tmp_path, changes, 0)
    assert sum(step.taken.data for step in steps) == 0
    assert times_of_change.measure(tmp_path / "gone", changes, 60)[1] == Taken()
