"""The word of an invitation, and the key that both sides make of it."""

from __future__ import annotations

import subprocess
import time
from datetime import datetime
from pathlib import Path

import pytest

from byteback.errors import RefusedError, UsageError
from byteback.model import ed25519, invitation
from byteback.model.key_line import format_invitation_line, parse_key_line
from byteback.model.public_key import PublicKey, parse_public_key
from byteback.server.access import invitations
from byteback.server.store.layout import Store
from byteback.system.ssh import session

HOST_KEY = PublicKey("ssh-ed25519", ed25519.format_blob(bytes(32)))


# RFC 8032, section 7.1.
@pytest.mark.parametrize(
    ("seed", "public"),
    [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        ),
    ],
)
def test_public_keys_are_those_of_the_standard(seed: str, public: str) -> None:
    assert ed25519.public_of(bytes.fromhex(seed)).hex() == public


@pytest.mark.needs("ssh-keygen")
@pytest.mark.parametrize("number", range(8))
def test_openssh_and_paramiko_read_the_key(number: int, tmp_path: Path) -> None:
    word = invitation.new_word(bytes([number]) * 16, HOST_KEY)
    path = tmp_path / "key"
    path.write_text(word.private_key)
    path.chmod(0o600)
    shown = subprocess.run(
        ["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, check=True
    )
    assert parse_public_key(shown.stdout).blob == word.key.blob
    assert session.read_key(word.private_key, "it").blob == word.key.blob


def test_a_word_says_what_it_was_made_of() -> None:
    secret = bytes(range(16))
    for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"):
        key = PublicKey(kind, b"a blob")
        text = invitation.format_word(invitation.new_word(secret, key))
        assert len(text) == 48
        assert text.startswith("B")
        word = invitation.parse_word(f" {text}\n")
        assert word == invitation.new_word(secret, key)
        assert word.is_of(key)
        assert not word.is_of(PublicKey(kind, b"another"))
    with pytest.raises(UsageError):
        invitation.new_word(secret, PublicKey("ecdsa-sha2-nistp521", b"x"))


def test_a_word_with_a_mistake_is_refused_and_not_repeated() -> None:
    text = invitation.format_word(invitation.new_word(bytes(16), HOST_KEY))
    wrong = [text[:at] + "x" + text[at + 1 :] for at in range(0, 48, 5)]
    for typed in (*wrong, text[:-1], text + "A", "", "\0", "ä" * 48, text.upper()):
        with pytest.raises(UsageError) as caught:
            invitation.parse_word(typed)
        assert not typed or typed not in caught.value.message


def test_a_line_says_what_it_lets_in() -> None:
    word = invitation.new_word(bytes(16), HOST_KEY)
    made = invitation.new_invitation(word.key, 1_800_000_000, "www.example")
    program = Path("/usr/bin/byteback-setup-client-receive")
    line = format_invitation_line(word.key, program, made.token, "20270115080000")
    parsed = parse_key_line(line)
    assert parsed is not None
    assert parsed.host is None
    assert not parsed.is_for_enrolling
    assert parsed.option("restrict") == ""
    assert parsed.option("expiry-time") == "20270115080000"
    assert parsed.invitation is not None
    assert invitation.parse_token(parsed.invitation) == made
    # The secret is not in it.
    assert bytes(16).hex() not in line.hex()
    for token in ("", "x", f"{made.number}:1:../x", f"{made.number}:-1:", "0:1:a"):
        assert invitation.parse_token(token) is None


def test_durations() -> None:
    assert invitation.parse_duration("7d") == 7 * 86400
    assert invitation.parse_duration("30m") == 1800
    for wrong in ("", "7", "0d", "-1d", "91d", "1w", "1e9d", "7d7d"):
        with pytest.raises(UsageError):
            invitation.parse_duration(wrong)


def test_ended_ones_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invitations, "MAX_OPEN", 2)
    store = Store(tmp_path)
    program = Path("/usr/bin/byteback-setup-client-receive")

    def invite(valid_s: int) -> str:
        return invitations.invite(store, "", valid_s, HOST_KEY, program)[1].number

    for _ in range(2):
        invite(0)
    # The last of the ended ones goes with the first that is open.
    found = [invite(60), invite(60)]
    with pytest.raises(RefusedError, match="2 open invitations"):
        invite(60)
    assert [one.number for one in invitations.open_invitations(store)] == found
    invitations.withdraw(store, found[0])
    invite(60)


def test_sshd_reads_the_machines_own_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The zone of who invites is no matter."""
    store = Store(tmp_path)
    found = []
    for zone in ("Etc/GMT+11", "Etc/GMT-11"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        word, made = invitations.invite(store, "", 3600, HOST_KEY, Path("/x"))
        line = store.authorized_keys.read_bytes().splitlines()[-1]
        parsed = parse_key_line(line)
        assert parsed is not None
        assert parsed.blob == word.key.blob
        text = f"{parsed.option('expiry-time')}+0000"
        at = datetime.strptime(text, "%Y%m%d%H%M%S%z")
        found.append(at.timestamp() - made.until)
    monkeypatch.undo()
    time.tzset()
    assert found[0] == found[1]
