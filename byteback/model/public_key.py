"""OpenSSH public keys as one line of text: ``TYPE BASE64 [COMMENT]``."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from byteback.errors import UsageError, quote

MAX_LINE = 16384  # characters; a 16384-bit RSA key takes under 3000
MAX_COMMENT = 200
MIN_RSA_BITS = 1024  # sshd(8) itself refuses shorter keys

# How many SSH strings (RFC 4251, section 5) a key of each type is made of, its own
# type name included: RFC 4253, RFC 5656, RFC 8709 and OpenSSH's PROTOCOL.u2f.
_FIELDS = {
    "ssh-ed25519": 2,
    "ssh-rsa": 3,
    "ecdsa-sha2-nistp256": 3,
    "ecdsa-sha2-nistp384": 3,
    "ecdsa-sha2-nistp521": 3,
    "sk-ssh-ed25519@openssh.com": 3,
    "sk-ecdsa-sha2-nistp256@openssh.com": 4,
}
KEY_TYPES = frozenset(_FIELDS)


@dataclass(frozen=True)
class PublicKey:
    """A public key; two are the same key when their blobs are equal."""

    kind: str
    blob: bytes
    comment: str = ""

    @property
    def fingerprint(self) -> str:
        """``SHA256:...``, as ssh-keygen -l prints it."""
        return format_fingerprint(self.blob)

    @property
    def line(self) -> str:
        """The key as one line without a newline, as parse_public_key takes it."""
        words = [self.kind, base64.b64encode(self.blob).decode("ascii")]
        return " ".join([*words, self.comment] if self.comment else words)


def format_fingerprint(blob: bytes) -> str:
    """The SHA-256 fingerprint of a key's blob, in OpenSSH's spelling."""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode("ascii")
    return "SHA256:" + digest.rstrip("=")


def parse_public_key(text: str) -> PublicKey:
    """Read one public key; raises UsageError for anything else.

    The line ends up in authorized_keys, where words before the type would be options
    (a command of the sender's choice) and a second line another key: both are refused
    here, and so is a blob that is not exactly a key of the type that is claimed.
    """
    text = text.strip(" \n")
    if len(text) > MAX_LINE:
        raise _bad("it is too long")
    if any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in text):
        raise _bad("it must be one line without control characters")
    kind, _, rest = text.partition(" ")
    encoded, _, comment = rest.strip(" ").partition(" ")
    if kind not in KEY_TYPES:
        raise _bad(f"{quote(kind[:60])} is no key type known here")
    blob = decode_blob(kind, encoded)
    if blob is None:
        raise _bad(f"its second word is no {kind} key in base64")
    return PublicKey(kind, blob, clean_comment(comment))


def decode_blob(kind: str, encoded: str) -> bytes | None:
    """The blob of a key of type ``kind``, or None if ``encoded`` holds no such key."""
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    fields = _split_strings(blob)
    if len(fields) != _FIELDS.get(kind, -1) or fields[0] != kind.encode():
        return None
    return blob if _has_sane_size(kind, fields) else None


def clean_comment(comment: str) -> str:
    """``comment`` without what could upset a terminal, and not endlessly long."""
    kept = "".join(c for c in comment if c.isprintable())
    return kept.strip()[:MAX_COMMENT].rstrip()


def _split_strings(blob: bytes) -> list[bytes]:
    fields, at = [], 0
    while at < len(blob):
        end = at + 4 + int.from_bytes(blob[at : at + 4], "big")
        if at + 4 > len(blob) or end > len(blob):
            return []
        fields.append(blob[at + 4 : end])
        at = end
    return fields


def _has_sane_size(kind: str, fields: list[bytes]) -> bool:
    if kind == "ssh-rsa":
        return int.from_bytes(fields[2], "big").bit_length() >= MIN_RSA_BITS
    if "ed25519" in kind:
        return len(fields[1]) == 32
    return fields[1] == kind.partition("@")[0].rpartition("-")[2].encode()


def _bad(reason: str) -> UsageError:
    return UsageError(
        f"this is no public key that can be enrolled: {reason}",
        hint="give the one line of the client's key.pub: "
        "its type, its base64 text, its comment",
    )
