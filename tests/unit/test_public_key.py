"""Public keys: what is taken, and what is refused before it reaches a file."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteback.errors import UsageError
from byteback.model.public_key import PublicKey, clean_comment, parse_public_key


def ssh_strings(*fields: bytes) -> str:
    blob = b"".join(len(x).to_bytes(4, "big") + x for x in fields)
    return base64.b64encode(blob).decode()


ED25519 = ssh_strings(b"ssh-ed25519", bytes(range(32)))
GOOD = f"ssh-ed25519 {ED25519} byteback client key"


@pytest.mark.needs("ssh-keygen")
@pytest.mark.parametrize(
    "options", [("ed25519",), ("rsa", "-b", "2048"), ("ecdsa", "-b", "384")]
)
def test_agrees_with_ssh_keygen(tmp_path: Path, options: tuple[str, ...]) -> None:
    path = tmp_path / "key"
    words = ["-t", *options, "-N", "", "-C", "a comment"]
    subprocess.run(["ssh-keygen", "-q", *words, "-f", path], check=True)
    text = path.with_suffix(".pub").read_text()
    key = parse_public_key(text)
    assert key.line == text.strip()
    listed = subprocess.run(
        ["ssh-keygen", "-l", "-f", path], capture_output=True, text=True, check=True
    )
    assert key.fingerprint in listed.stdout.split()


def test_security_keys_are_known() -> None:
    for kind, fields in (
        ("sk-ssh-ed25519@openssh.com", (bytes(32), b"ssh:")),
        ("sk-ecdsa-sha2-nistp256@openssh.com", (b"nistp256", bytes(65), b"ssh:")),
    ):
        text = f"{kind} {ssh_strings(kind.encode(), *fields)}"
        assert parse_public_key(text).kind == kind


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ssh-ed25519",
        f"restrict {GOOD}",
        f'command="id" {GOOD}',
        f'from="*",{GOOD}',
        f"{GOOD}\n{GOOD}",
        f"{GOOD}\rssh-ed25519 {ED25519}",
        f"ssh-ed25519\t{ED25519}",
        f"{GOOD}\0",
        f"{GOOD}\x1b[2J",
        f"{GOOD}\x85x",
        f"ssh-rsa {ED25519}",
        f"ssh-ed25519 {ED25519[:-4]}",
        f"ssh-ed25519 {ED25519[:20]}*{ED25519[21:]}",
        f"ssh-ed25519 {ED25519}AAAA",
        f"ssh-ed25519 {ssh_strings(b'ssh-ed25519', bytes(31))}",
        f"ssh-ed25519 {ssh_strings(b'ssh-ed25519', bytes(32), b'more')}",
        "ssh-rsa " + ssh_strings(b"ssh-rsa", b"\3", bytes([127] * 64)),
        "ecdsa-sha2-nistp256 "
        + ssh_strings(b"ecdsa-sha2-nistp256", b"nistp384", bytes(65)),
        f"ssh-dss {ssh_strings(b'ssh-dss', b'p', b'q', b'g', b'y')}",
        f"ssh-ed25519 {ED25519} {'x' * 20000}",
    ],
    ids=range(21),
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_public_key(text)


def test_spaces_around_and_between_do_not_matter() -> None:
    assert parse_public_key(f" {GOOD} \n") == parse_public_key(GOOD)
    assert parse_public_key(f"ssh-ed25519  {ED25519}").comment == ""


def test_comments_are_cleaned() -> None:
    assert clean_comment("a\u202eb \ud83d c") == "ab  c"
    assert len(clean_comment("x" * 1000)) == 200


@given(st.text())
def test_whatever_is_taken_is_one_harmless_line(text: str) -> None:
    key = parse_public_key(f"ssh-ed25519 {ED25519} " + clean_comment(text))
    assert key.line.isprintable()
    assert parse_public_key(key.line) == key


@given(st.text())
def test_rubbish_is_refused_and_never_crashes(text: str) -> None:
    with pytest.raises(UsageError):
        parse_public_key(text)


def test_same_key_is_the_same_blob() -> None:
    key = parse_public_key(GOOD)
    assert key == PublicKey("ssh-ed25519", key.blob, "byteback client key")
