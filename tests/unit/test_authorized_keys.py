"""authorized_keys: read as administrators write it, changed without harm to them."""

from __future__ import annotations

import errno
import os
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteback.errors import BytebackError, NotSetUpError, RefusedError
from byteback.model.key_line import (
    format_client_line,
    format_enrolling_line,
    parse_key_line,
)
from byteback.model.public_key import parse_public_key
from byteback.server.access import authorized_keys
from byteback.server.store.layout import Store
from tests.unit.test_public_key import ssh_strings

PROGRAM = Path("/usr/bin/byteback-receive")
ENROL = Path("/usr/bin/byteback-setup-client-receive")


def key_text(number: int) -> str:
    blob = ssh_strings(b"ssh-ed25519", bytes([number] * 32))
    return f"ssh-ed25519 {blob} key {number}"


KEY = parse_public_key(key_text(1))
OLD_STYLE = (
    'command="byteback-receive",from="192.0.2.7",'
    f'environment="BYTEBACK_HOST=a.example" {key_text(2)}'
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / ".ssh").mkdir(mode=0o700)
    return Store(tmp_path)


@pytest.mark.parametrize(
    ("line", "host"),
    [
        (f'restrict,command="/x/byteback-receive --host a.b" {KEY.line}', "a.b"),
        (f'command="/x y/byteback-receive --host a.b" {KEY.line}', None),
        (f"command=\"'/x y/byteback-receive' --host a.b\",restrict {KEY.line}", "a.b"),
        (OLD_STYLE, "a.example"),
        (f'  environment="A=B",environment="BYTEBACK_HOST=h",command="byteback-receive" {KEY.line}', "h"),  # noqa: E501 # one line of a file
        (f'COMMAND="byteback-receive",environment="BYTEBACK_HOST=h" {KEY.line}', "h"),
        (f'command="byteback-receive --host ../x" {KEY.line}', None),
        (f'command="other --host h" {KEY.line}', None),
        (f'command="echo \\"byteback-receive --host h\\"" {KEY.line}', None),
        (f'command="unbalanced \' quote" {KEY.line}', None),
        (f"{KEY.line} byteback-receive --host h", None),
        (KEY.line, None),
    ],
)  # fmt: skip
def test_lines_are_bound_to_hosts(line: str, host: str | None) -> None:
    parsed = parse_key_line(line.encode())
    assert parsed is not None
    assert parsed.host == host


@pytest.mark.parametrize(
    "line", ["", "  ", "# ssh-ed25519 AAAA", "rubbish", 'from="x', "ssh-rsa !!", "a b"]
)
def test_what_lets_nobody_in_is_left_out(line: str) -> None:
    assert parse_key_line(line.encode()) is None


@given(st.binary())
def test_any_line_can_be_read(line: bytes) -> None:
    parse_key_line(line)


def test_lines_that_are_written_are_read_back() -> None:
    program = PurePath("/opt/a \"b' c/byteback-receive")
    line = format_client_line(KEY, "a.example", program, {"from": "10.0.0.0/8,::1"})
    parsed = parse_key_line(line)
    assert parsed is not None
    assert (parsed.host, parsed.blob) == ("a.example", KEY.blob)
    assert parsed.option("from") == "10.0.0.0/8,::1"
    assert parsed.option("restrict") == ""
    enrolling = parse_key_line(format_enrolling_line(KEY, ENROL))
    assert enrolling is not None
    assert enrolling.is_for_enrolling
    assert enrolling.host is None


def test_other_lines_stay_as_they_are(store: Store) -> None:
    others = b"# mine\n\n  junk \xff\r\n" + OLD_STYLE.encode() + b"  "
    store.authorized_keys.write_bytes(others)  # no newline at the end
    line = format_client_line(KEY, "h", PROGRAM, {})
    with authorized_keys.editing(store) as key_file:
        key_file.put([], line)
    assert store.authorized_keys.read_bytes() == others + b"\n" + line + b"\n"
    assert store.authorized_keys.stat().st_mode & 0o777 == 0o600


def test_nothing_is_written_when_nothing_changes(store: Store) -> None:
    store.authorized_keys.write_bytes(b"no newline")
    before = store.authorized_keys.stat().st_ino
    with authorized_keys.editing(store):
        pass
    assert store.authorized_keys.stat().st_ino == before
    assert store.authorized_keys.read_bytes() == b"no newline"


def test_line_is_put_in_the_place_of_others(store: Store) -> None:
    key_file = authorized_keys.KeyFile([b"a", b"b", b"c", b"d"])
    key_file.put([2, 0], b"new")
    assert key_file.lines == [b"b", b"new", b"d"]


def test_directory_is_made_and_closed_to_others(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with authorized_keys.editing(store) as key_file:
        key_file.put([], KEY.line.encode())
    assert store.authorized_keys.parent.stat().st_mode & 0o777 == 0o700
    store.authorized_keys.parent.chmod(0o755)
    with authorized_keys.editing(store):
        pass
    assert store.authorized_keys.parent.stat().st_mode & 0o777 == 0o700


def test_links_are_refused(store: Store, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"as it was")
    store.authorized_keys.symlink_to(elsewhere)
    with (
        pytest.raises(BytebackError, match="symbolic link"),
        authorized_keys.editing(store) as key_file,
    ):
        key_file.put([], b"x")
    assert elsewhere.read_bytes() == b"as it was"


def test_full_disc_leaves_the_old_file(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.authorized_keys.write_bytes(b"old\n")

    def fail(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with (
        pytest.raises(NotSetUpError, match="No space left"),
        authorized_keys.editing(store) as key_file,
    ):
        key_file.put([], b"new")
    assert store.authorized_keys.read_bytes() == b"old\n"
    assert [x.name for x in store.authorized_keys.parent.iterdir()] == [
        "authorized_keys"
    ]


def test_administrators_key_is_added_once(store: Store) -> None:
    assert authorized_keys.add_admin_key(store, KEY.line, ENROL)
    assert not authorized_keys.add_admin_key(store, KEY.line, ENROL)
    moved = Path("/opt/byteback-setup-client-receive")
    assert authorized_keys.add_admin_key(store, KEY.line, moved)
    assert store.authorized_keys.read_text() == (
        f'restrict,command="{moved} --forced" {KEY.line}\n'
    )


@pytest.mark.parametrize(
    "line", [key_text(1), f'command="/x/byteback-receive --host h" {key_text(1)}']
)
def test_key_in_other_use_does_not_become_an_administrators(
    store: Store, line: str
) -> None:
    store.authorized_keys.write_text(f"{line}\n")
    with pytest.raises(RefusedError):
        authorized_keys.add_admin_key(store, KEY.line, ENROL)
    assert store.authorized_keys.read_text() == f"{line}\n"
