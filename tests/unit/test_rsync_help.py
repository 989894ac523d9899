"""Each rsync is asked once for the options that it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from byteback.system.rsync import options

HELP = "Usage: rsync\n--times, -t   preserve\n--no-OPTION\n--confine-root=DIR  refuse\n"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Something like rsync, which counts how often it is asked."""
    return make(tmp_path / "rsync", HELP)


def make(place: Path, text: str) -> Path:
    place.write_text(
        f"#!/bin/sh\necho x >> {place.parent}/asked\ncat <<'END'\n{text}END\n"
    )
    place.chmod(0o755)
    return place


def times_asked(program: Path) -> int:
    return len((program.parent / "asked").read_text().split())


def test_options_are_those_of_its_help(program: Path) -> None:
    assert {"--times", "--confine-root"} <= options.options(program)
    assert "--insecure-links" not in options.options(program)


@pytest.mark.needs("rsync")
def test_the_real_one_is_understood() -> None:
    assert {"--inplace", "--fake-super"} <= options.options(Path("/usr/bin/rsync"))


def test_it_is_asked_once(program: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = options.options(program, cache)
    assert options.options(program, cache) == first
    assert times_asked(program) == 1


def test_another_binary_is_asked_again(program: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    options.options(program, cache)
    make(program, HELP + "--new-one\n")
    assert "--new-one" in options.options(program, cache)
    assert times_asked(program) == 2


@pytest.mark.parametrize("content", [b"", b"x", b"\xff\n\xff\n", b"a\nb\nc\n"])
def test_a_damaged_cache_is_made_again(
    content: bytes, program: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    cache.write_bytes(content)
    assert "--times" in options.options(program, cache)
    options.options(program, cache)
    assert times_asked(program) == 1


def test_where_nothing_can_be_written_it_is_asked_each_time(
    program: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "missing" / "cache"
    for _ in range(2):
        assert "--times" in options.options(program, cache)
    assert times_asked(program) == 2
