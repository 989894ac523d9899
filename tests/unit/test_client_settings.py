"""What the client reads: command line, files in /etc/byteback, and the key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from byteback.client.backup import push, rules
from byteback.client.restore import pull
from byteback.client.settings import (
    ALWAYS_GIVEN,
    Files,
    check_key,
    read_destination,
    read_io_timeout,
    read_rsync_flags,
)
from byteback.errors import (
    NotRootError,
    NotSetUpError,
    UsageError,
)


def files(tmp_path: Path, **contents: str | bytes) -> Files:
    for name, content in contents.items():
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
    return Files(tmp_path)


def test_the_command_line_beats_the_file(tmp_path: Path) -> None:
    there = files(tmp_path, destination="byteback@file:\n", io_timeout="60\n")
    assert read_destination(there, None).host == "file"
    assert read_destination(there, "given").host == "given"
    assert read_io_timeout(there, None, 9) == 60
    assert read_io_timeout(there, 5, 9) == 5


@pytest.mark.parametrize("content", ["", "\n", " \n\n"])
def test_an_empty_destination_is_not_set_up(tmp_path: Path, content: str) -> None:
    with pytest.raises(NotSetUpError, match="empty"):
        read_destination(files(tmp_path, destination=content), None)


def test_a_missing_destination_is_not_set_up(tmp_path: Path) -> None:
    with pytest.raises(NotSetUpError, match="missing"):
        read_destination(Files(tmp_path), None)


@pytest.mark.parametrize(
    "content", [b"\0\1\2", b"\xff\xfe", b"a b c", b"host1:\nhost2:", b"x" * 2_000_000]
)
def test_a_broken_destination_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UsageError):
        read_destination(files(tmp_path, destination=content), None)


@pytest.mark.parametrize("content", ["soon", "-5", "0", "1e9", "99999999999", "٣"])
def test_a_wrong_time_out_file_is_named(tmp_path: Path, content: str) -> None:
    with pytest.raises(UsageError, match="io_timeout"):
        read_io_timeout(files(tmp_path, io_timeout=content), None, 9)


def test_rsync_flags_in_all_their_spellings(tmp_path: Path) -> None:
    text = "--bwlimit=5 --one-file-system\n\n# remark\n--exclude 'a b'\n"
    flags = read_rsync_flags(files(tmp_path, rsync_flags=text))
    assert flags == ["--bwlimit=5", "--one-file-system", "--exclude=a b"]


@pytest.mark.parametrize(
    "text", ["--exclude 'a", "/etc", "--checksum etc", "--files-from=list", "--", "-B"]
)
def test_rsync_flags_that_are_none_are_named(tmp_path: Path, text: str) -> None:
    """A word that is no option would be another source to rsync."""
    with pytest.raises(UsageError, match="rsync_flags"):
        read_rsync_flags(files(tmp_path, rsync_flags=text))


def test_what_every_transfer_has_counts_once(tmp_path: Path) -> None:
    """The manual of 0.4 recommended these; -XX is refused beside --fake-super."""
    text = "--xattrs --acls --hard-links\n-aAXHz --stats"
    assert read_rsync_flags(files(tmp_path, rsync_flags=text)) == ["-z"]
    for options in (push.OPTIONS, pull.OPTIONS):
        assert {f"--{name}" for name in ALWAYS_GIVEN} <= set(options)


def test_a_missing_or_empty_key_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotSetUpError) as missing:
        check_key(tmp_path / "key")
    assert "byteback-setup-client" in (missing.value.hint or "")
    with pytest.raises(NotSetUpError, match="empty"):
        check_key(files(tmp_path, key="").key)


def test_a_key_that_others_could_read_is_put_right(tmp_path: Path) -> None:
    key = files(tmp_path, key="x").key
    key.chmod(0o644)
    check_key(key)
    assert key.stat().st_mode & 0o777 == 0o600


def test_a_key_of_roots_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever ran byteback-restore without sudo was told to move the key away."""
    key = files(tmp_path, key="x").key
    assert check_key(key) == key
    monkeypatch.setattr(os, "access", lambda *_: False)  # root can read everything
    with pytest.raises(NotRootError, match="cannot read") as refused:
        check_key(key)
    assert refused.value.hint == "run this with sudo"


@pytest.mark.parametrize("name", ["excludes", "rsync_filter"])
def test_rules_that_are_no_text_are_named(tmp_path: Path, name: str) -> None:
    there = files(tmp_path, **{name: b"\0\1"})
    with pytest.raises(UsageError, match=f"{name}' is no text file"):
        rules.check(there, rules.Request())
    rules.check(files(tmp_path, **{name: b"- /caf\xe9\n"}), rules.Request())
