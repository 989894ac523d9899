"""Ed25519 keys made from a secret, by the library that paramiko uses as well.

Both sides of an invitation make the same key from its word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def public_of(seed: bytes) -> bytes:
    """The 32 bytes of the public key that belongs to 32 secret ones (RFC 8032)."""
    from cryptography.hazmat.primitives import serialization

    return (
        _key(seed)
        .public_key()
        .public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    )


def format_private_key(seed: bytes) -> str:
    """The key as an unencrypted file of OpenSSH's, without a comment."""
    from cryptography.hazmat.primitives import serialization

    text = _key(seed).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    return text.decode("ascii")


def format_blob(seed: bytes) -> bytes:
    """The public key as SSH sends it (RFC 8709)."""
    return _string(b"ssh-ed25519") + _string(public_of(seed))


def _key(seed: bytes) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed)


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data
