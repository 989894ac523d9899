"""Backups and restores compress where the line is slow, and only there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration import conftest as machine
from tests.integration.faults.parts import CABLE
from tests.integration.faults.world import World
from tests.integration.programs import run_program

SIZE = 4 << 20
RATE = re.compile(r"compressing: the line carries about (\d+) (?:MB|(kB))/s")
HELLO = '{"byteback": "1.0.0", "protocol": 1, "host": "client.test"}'


@pytest.fixture(autouse=True)
def compressible(world: World) -> None:
    """One file, of which little is left when it is compressed."""
    lines = (f"line {number} of many that are alike\n" for number in range(SIZE // 32))
    (world.source / "file").write_text("".join(lines))
    assert (world.source / "file").stat().st_size > SIZE


@pytest.fixture
def patient(with_constants: Callable[..., None]) -> None:
    """Also a cable between two cores that others use counts as fast."""
    with_constants("client/transport/compression.py", FAST="1e4")
    with_constants("client/transport/line_probe.py", LONGEST_S="60.0", SHORT_S="5.0")


@pytest.fixture
def with_receive(installed: Path) -> Iterator[Callable[[str], None]]:
    """Puts another server in place of ours for those pings that measure."""
    program = machine.LIBRARY / "bin/byteback-receive"
    ours = program.rename(program.with_name("ours"))

    def replace(script: str) -> None:
        program.write_text(
            '#!/bin/sh\ncase "$SSH_ORIGINAL_COMMAND" in *--probe*)\n'
            f'{script}\nesac\nexec {ours} "$@"\n'
        )
        program.chmod(0o755)

    yield replace
    ours.rename(program)


def bytes_received() -> int:
    shown = run_program(["ip", "-n", "client", "-s", "-j", "link", "show", CABLE])
    received: int = json.loads(shown.stdout)[0]["stats64"]["rx"]["bytes"]
    return received


def restore(world: World, to: Path, *options: str) -> str:
    """Bring the file back, and return what --verbose says."""
    program = str(world.bin / "byteback-restore")
    words = ["--restore", "--verbose", "--to", str(to), *options]
    argv = ["nsenter", "--net=/run/netns/client", program, *words]
    outcome = run_program([*argv, f"{world.source}/file"])
    there = to / world.source.relative_to("/") / "file"
    assert there.read_bytes() == (world.source / "file").read_bytes()
    return outcome.stderr


def test_a_fast_line_carries_files_as_they_are(
    world: World, patient: None, tmp_path: Path
) -> None:
    before = world.bytes_sent()
    said = world.backup("--verbose").stderr
    assert f"not {RATE.search(said)[0]}" in said  # type: ignore[index] # it must be there
    print([line for line in said.splitlines() if "compressing" in line])
    assert " --compress " not in said
    assert SIZE < world.bytes_sent() - before < SIZE + (5 << 20)
    before = bytes_received()
    said = restore(world, tmp_path)
    assert "not compressing: the line carries about" in said
    assert bytes_received() - before > SIZE


def test_a_slow_line_carries_files_compressed(world: World, tmp_path: Path) -> None:
    world.slow("100mbit")
    before = world.bytes_sent()
    said = world.backup("--verbose").stderr
    found = RATE.search(said)
    assert found is not None, said
    print("of 12.5 MB/s:", found[0])
    assert f"not {found[0]}" not in said
    # Of 12.5, and less on a busy machine.
    assert found[2] == "kB" or int(found[1]) <= 14
    assert " --compress " in said
    # What measures the line is sent, too.
    assert world.bytes_sent() - before < SIZE // 2
    before = bytes_received()
    said = restore(world, tmp_path)
    assert "\ncompressing: the line carries about" in f"\n{said}"
    assert bytes_received() - before < SIZE // 4


def test_a_very_slow_line_is_not_held_up(world: World) -> None:
    world.slow("1mbit")
    before = world.bytes_sent()
    said = world.backup("--verbose", "--dry-run").stderr
    found = re.search(r"compressing: the line carries about (\d+) kB/s", said)
    assert found is not None, said
    assert int(found[1]) <= 130  # of 125, and less on a busy machine
    assert world.bytes_sent() - before < 200_000


@pytest.mark.parametrize(
    ("choice", "flags", "is_compressed"),
    [("zstd", "", True), ("none", "", False), ("zstd", "--no-compress", False)],
)
def test_what_is_asked_for_is_not_measured(
    world: World, choice: str, flags: str, is_compressed: bool
) -> None:
    (world.configuration / "compress").write_text(f"{choice}\n")
    (world.configuration / "rsync_flags").write_text(flags)
    before = world.bytes_sent()
    said = world.backup("--verbose").stderr
    assert "--probe" not in said
    assert (" --compress " in said) == is_compressed
    assert (world.bytes_sent() - before < SIZE // 2) == is_compressed


def test_the_command_line_beats_the_file(world: World) -> None:
    (world.configuration / "compress").write_text("gzip")
    outcome = world.backup(expect=2)
    assert "'/etc/byteback/compress': 'gzip' is no way to compress" in outcome.stderr
    assert " --compress " in world.backup("--verbose", "--compress", "zstd").stderr


@pytest.mark.parametrize(
    ("script", "said"),
    [
        # As servers answered before they knew it, and as the Ruby tool's does.
        (
            'echo "byteback-receive: error: it does not know --probe" >&2; exit 9',
            "not compressing: the line could not be measured",
        ),
        (
            "echo byteback-receive failed >&2; exit 9",
            "not compressing: the line could not be measured",
        ),
        (f"echo '{HELLO}'; exit 0", "not compressing: the line could"),
        (f"echo '{HELLO}'; exit 9", "not compressing: the line could"),
        (f"echo '{HELLO}'; exec yes", "not compressing: the line could"),
        # It takes all, says nothing, and ends when the client does.
        (
            f"echo '{HELLO}'; exec cat >/dev/null",
            "compressing: the line carries about 0",
        ),
    ],
    ids=["before", "Ruby", "ended", "failed", "lying", "silent"],
)
def test_a_server_that_does_not_take_part_is_backed_up_to(
    world: World, with_receive: Callable[[str], None], script: str, said: str
) -> None:
    with_receive(script)
    outcome = world.backup("--verbose", retries=0)
    assert f"\n{said}" in outcome.stderr
    assert len(world.snapshots()) == 1
    world.assert_nothing_left()
