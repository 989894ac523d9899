"""Invitations: a word of 48 characters that enrols one machine without a login (D52).

The word holds 128 secret bits and which host key the server has. From the secret both
sides make the same key pair. The server keeps the public half alone, as a line in
authorized_keys that can only enrol: what it keeps opens nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import NamedTuple

from byteback.errors import UsageError
from byteback.model import ed25519
from byteback.model.hostname import is_host_name
from byteback.model.public_key import PublicKey

SECRET_BYTES = 16
FINGERPRINT_BYTES = 16  # of SHA-256: another key with the same ones is not to be found
CHECK_BYTES = 3
COMMENT = "byteback invitation"
# The first byte: so each word begins with a letter, and not like an option.
_HOST_KEYS = {
    4: "ssh-ed25519",
    5: "ecdsa-sha2-nistp256",
    6: "ssh-rsa",
}
_TOKEN = re.compile(r"([0-9a-f]{16}):(\d{1,12}):([A-Za-z0-9._-]*)", re.ASCII)
_UNITS = {"m": 60, "h": 3600, "d": 86400}
MAX_VALID_S = 90 * 86400


class Word(NamedTuple):
    """What an invitation's word says."""

    secret: bytes
    host_key_type: str
    fingerprint: bytes  # the first bytes of the SHA-256 of the server's host key

    @property
    def key(self) -> PublicKey:
        """The public half of the invitation's key."""
        return PublicKey("ssh-ed25519", ed25519.format_blob(self._seed()), COMMENT)

    @property
    def private_key(self) -> str:
        """The invitation's key as a file of OpenSSH's."""
        return ed25519.format_private_key(self._seed())

    def is_of(self, host_key: PublicKey) -> bool:
        """True if the server that shows ``host_key`` is the one that invites."""
        return short_fingerprint(host_key) == self.fingerprint

    def _seed(self) -> bytes:
        return hashlib.sha256(b"byteback invitation\0" + self.secret).digest()


class Invitation(NamedTuple):
    """An open invitation, as its line in authorized_keys says."""

    number: str
    until: int  # seconds since 1970
    name: str  # of the client; empty for any new one

    @property
    def token(self) -> str:
        """It all in one word of a forced command."""
        return f"{self.number}:{self.until}:{self.name}"


def new_word(secret: bytes, host_key: PublicKey) -> Word:
    """The word with that secret. Raises UsageError for a host key of another type."""
    if host_key.kind not in _HOST_KEYS.values():
        raise UsageError(
            f"an invitation cannot name a host key of the type {host_key.kind}",
            hint=f"name one of these: {', '.join(_HOST_KEYS.values())}",
        )
    return Word(secret, host_key.kind, short_fingerprint(host_key))


def short_fingerprint(key: PublicKey) -> bytes:
    """As many bytes of a key's fingerprint as a word holds."""
    return hashlib.sha256(key.blob).digest()[:FINGERPRINT_BYTES]


def format_word(word: Word) -> str:
    """The word as people pass it on."""
    first = next(n for n, kind in _HOST_KEYS.items() if kind == word.host_key_type)
    data = bytes([first]) + word.secret + word.fingerprint
    return base64.urlsafe_b64encode(data + _check_sum(data)).decode("ascii")


def parse_word(text: str) -> Word:
    """Raises UsageError for what is no word, or has a typing error in it.

    The text is in no message: it may be a word all the same.
    """
    try:
        data = base64.b64decode(text.strip(), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        data = b""
    body, check = data[:-CHECK_BYTES], data[-CHECK_BYTES:]
    is_whole = len(body) == 1 + SECRET_BYTES + FINGERPRINT_BYTES
    if not is_whole or check != _check_sum(body) or body[0] not in _HOST_KEYS:
        raise UsageError(
            "this is no invitation's word, or it was not copied whole",
            hint="'byteback-clients invite' on the server prints one: 48 characters",
        )
    secret = body[1 : 1 + SECRET_BYTES]
    return Word(secret, _HOST_KEYS[body[0]], body[1 + SECRET_BYTES :])


def new_invitation(key: PublicKey, until: int, name: str) -> Invitation:
    """The invitation that belongs to a key."""
    return Invitation(hashlib.sha256(key.blob).hexdigest()[:16], until, name)


def parse_token(text: str) -> Invitation | None:
    """The invitation that a forced command names; None for rubbish."""
    match = _TOKEN.fullmatch(text)
    if match is None or (match[3] and not is_host_name(match[3])):
        return None
    return Invitation(match[1], int(match[2]), match[3])


def parse_duration(text: str) -> int:
    """``7d``, ``12h`` or ``30m`` in seconds. Raises UsageError."""
    match = re.fullmatch(r"(\d{1,6})([mhd])", text.strip(), re.ASCII)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 60 <= seconds <= MAX_VALID_S:
        raise UsageError(
            f"an invitation cannot be valid for {text[:20]!r}",
            hint="such as 7d, 12h or 30m; 90d at most",
        )
    return seconds


def _check_sum(data: bytes) -> bytes:
    return hashlib.sha256(b"byteback word\0" + data).digest()[:CHECK_BYTES]
