"""What mounts and other file systems mean for the record."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pytest

from byteback.client.record import keeper
from byteback.client.record.walk import Domain
from tests.integration.conftest import unmount
from tests.integration.programs import run_program
from tests.integration.record.machine import Machine, mounted_disc
from tests.integration.record.proofs import SURE_S, assert_right, names, record

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("soon_sure")]


def test_a_mount_that_goes_and_comes_meanwhile_leaves_no_record(
    machine: Machine,
) -> None:
    with mounted_disc("ext4") as other:
        (other / "file").write_text("on the other disc")
        place = machine.source / "mounted"
        place.mkdir()
        with mounted_at(other, place):
            time.sleep(SURE_S)
            record(machine)
            machine.token = None
            round_ = machine.back_up(
                meanwhile=lambda: unmount(place),
                afterwards=lambda: bind(other, place),
            )
            assert not round_.is_usable
            assert_right(machine, in_part=False)


def bind(source: Path, place: Path) -> None:
    """Show a directory at another place, too."""
    run_program(["mount", "--bind", source, place])


class mounted_at:  # noqa: N801 # used as a function
    """A directory shown at another place until the end of the block."""

    def __init__(self, source: Path, place: Path) -> None:
        self.source, self.place = source, place

    def __enter__(self) -> None:
        """Mount it."""
        bind(self.source, self.place)

    def __exit__(self, *_: object) -> None:
        """Unmount it."""
        unmount(self.place)


def test_what_is_mounted_over_files_is_sent(machine: Machine) -> None:
    (machine.aside / "other").mkdir()
    (machine.aside / "other" / "x").write_text("another x")
    (machine.aside / "one").write_text("another a")
    time.sleep(SURE_S)
    with (
        mounted_at(machine.aside / "other", machine.source / "d"),
        mounted_at(machine.aside / "one", machine.source / "a"),
    ):
        assert_right(machine)
    assert_right(machine)


def test_a_copied_disc_in_place_of_the_first_is_sent(machine: Machine) -> None:
    """It has the same inode numbers and ctimes, and other contents."""
    marker = b"marker of the contents" * 400
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        first, second = Path(directory, "first"), Path(directory, "second")
        with first.open("wb") as file:
            file.truncate(20 << 20)
        run_program(["mkfs.ext4", "-q", first])
        place = machine.source / "mounted"
        place.mkdir()
        with loop_mounted(first, place):
            (place / "file").write_bytes(marker)
        data = first.read_bytes()
        assert marker in data
        second.write_bytes(data.replace(marker, marker.swapcase()))
        with loop_mounted(first, place):
            record(machine)
            with loop_mounted(second, place):
                assert "./mounted/file" in names(machine)


class loop_mounted:  # noqa: N801 # used as a function
    """A disc's image, mounted until the end of the block; reading changes nothing."""

    def __init__(self, image: Path, place: Path) -> None:
        self.image, self.place = image, place

    def __enter__(self) -> None:
        """Mount it."""
        run_program(["mount", "-o", "loop,noatime", self.image, self.place])

    def __exit__(self, *_: object) -> None:
        """Unmount it."""
        unmount(self.place)


def test_overlays_leave_no_record(machine: Machine) -> None:
    for name in ("upper", "work", "lower"):
        (machine.aside / name).mkdir()
    place = machine.source / "overlay"
    place.mkdir()
    layers = ",".join(
        f"{layer}dir={machine.aside / layer}" for layer in ("upper", "work", "lower")
    )
    run_program(["mount", "-t", "overlay", "-o", layers, "overlay", place])
    try:
        assert not machine.back_up().is_usable
    finally:
        unmount(place)


def test_only_the_way_to_a_source_may_be_an_overlay(
    machine: Machine, tmp_path: Path
) -> None:
    """A source on a disc of its own, below a root that tells no changes."""
    source = str(machine.source)
    machine.place = machine.place.__class__(machine.place.record, machine.place.run)
    machine.selected = machine.selected.__class__(
        [
            *(f"--filter=+ {path}/" for path in (*reversed(above(source)),)),
            f"--filter=+ {source}/***",
            "--filter=- *",
        ],
        "sources",
        Domain([source], []),
    )
    time.sleep(SURE_S)
    with keeper.Round(machine.selected, None, None, place=machine.place) as round_:
        assert round_.is_usable, round_.reason
        round_.settle()
        round_.finish("token")
    machine.token = "token"  # noqa: S105 # no password
    (machine.source / "a").write_text("changed")
    assert f".{source}/a" in names(machine)
    assert f".{source}/d/x" not in names(machine)


def above(path: str) -> list[str]:
    """The directories above a path, but for the root."""
    return [str(parent) for parent in Path(path).parents if str(parent) != "/"]


def test_foreign_mounts_are_not_entered(machine: Machine) -> None:
    place = machine.source / "foreign"
    place.mkdir()
    run_program(["mount", "-t", "tmpfs", "tmpfs", place])
    try:
        (place / "file").write_text("no disc's")
        machine.selected = machine.selected.__class__(
            [*machine.selected.rules, "--exclude=/foreign/*"],
            "always the same",
            Domain(["/"], ["/foreign"]),
        )
        time.sleep(SURE_S)
        assert machine.back_up().is_usable
        assert names(machine) == {"./foreign"}
    finally:
        unmount(place)
