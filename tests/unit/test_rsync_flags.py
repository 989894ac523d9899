"""The words of rsync_flags are read as rsync reads them."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest

from byteback.model import rsync_flags
from byteback.model.rsync_flags import StrayWordError, collapse, parse_flags

GIVEN = ("archive", "xattrs")


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("--xattrs", ""),
        ("-X", ""),
        ("-XX", ""),
        ("-aXz --xattrs -z", "-z"),
        ("--checksum -c", "--checksum"),
        ("-x --one-file-system", "-x"),
        ("-xx", "-xx"),  # meant, not an accident
        ("-xxz -x", "-xx -z"),
        ("--no-xattrs --xattrs", "--no-xattrs --xattrs"),
        ("--no-X -X", "--no-X -X"),
        ("--no-perms -a", "--no-perms -a"),
        ("--exclude -X --exclude -X", "--exclude=-X --exclude=-X"),
        ("-f '- a' -f '- b'", "'--filter=- a' '--filter=- b'"),
        ("-f- --bwlimit 5 -B4096", "--filter=- --bwlimit=5 --block-size=4096"),
        ("-zfX -X", "-z --filter=X"),
        (
            "-e 'ssh -p 2' -M--fake-super",
            "'--rsh=ssh -p 2' --remote-option=--fake-super",
        ),
        ("-FF -F", "-FF"),
    ],
)
def test_what_is_said_twice_is_kept_once(words: str, kept: str) -> None:
    assert collapse(shlex.split(words), GIVEN) == shlex.split(kept)


@pytest.mark.parametrize("words", ["a", "-", "--", "-x /etc", "--checksum x", "-B"])
def test_words_that_belong_to_no_option(words: str) -> None:
    with pytest.raises(StrayWordError):
        parse_flags(words.split())


@pytest.mark.parametrize(
    ("words", "level"),
    [
        ("", 0),
        ("-x", 1),
        ("-zx --one-file-system", 1),
        ("-xx", 2),
        ("-x --no-x", 0),
        ("-xx --no-one-file-system -x", 1),
        ("--exclude -x", 0),
    ],
)
def test_one_file_system_is_taken_out(words: str, level: int) -> None:
    kept, found = rsync_flags.take_one_file_system(words.split())
    assert found == level
    assert not [flag for flag in parse_flags(kept) if flag.name == "one-file-system"]


def test_values_of_rsync_3_5_are_no_options() -> None:
    words = shlex.split("--compress-threads --exclude=a --confine-root -x")
    assert rsync_flags.filters(words) == []
    kept = ["--compress-threads=--exclude=a", "--confine-root=-x"]
    assert rsync_flags.take_one_file_system(words) == (kept, 0)


def test_filters_are_found_in_their_order() -> None:
    words = shlex.split("-zF --include=a -f '- b' --bwlimit=5 --exclude c -C")
    found = [" ".join(flag.words) for flag in rsync_flags.filters(words)]
    assert found == ["-F", "--include=a", "--filter=- b", "--exclude=c", "-C"]


@pytest.mark.needs("rsync")
def test_every_option_with_a_value_is_known() -> None:
    """rsync's own help has them as --option=VALUE."""
    shown = subprocess.run(
        ["rsync", "--help"], capture_output=True, text=True, check=True
    ).stdout
    with_value = set(
        re.findall(r"^ *(?:-\w, )?--([a-z][a-z0-9-]*)=", shown, re.MULTILINE)
    )
    assert len(with_value) > 40
    assert with_value <= rsync_flags.WITH_VALUE
    letters = re.findall(
        r"^ *--([a-z][a-z0-9-]*)(?:=\w+)?, -(\w|@) ", shown, re.MULTILINE
    )
    ours = {**rsync_flags.LETTERS, **rsync_flags.VALUE_LETTERS}
    for name, letter in letters:
        assert ours.get(letter) == name or letter in "hV", name
