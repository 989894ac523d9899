"""Ed25519 (RFC 8032): the public half of a key, and OpenSSH's file for the secret one.

Both sides of an invitation make the same key from its word. Nothing is signed here.
"""

from __future__ import annotations

import base64
import hashlib

_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_BASE_Y = 4 * pow(5, -1, _P) % _P
_WIDTH = 70  # characters of a line in OpenSSH's files

Point = tuple[int, int, int, int]  # extended coordinates, section 5.1.4


def public_of(seed: bytes) -> bytes:
    """The 32 bytes of the public key that belongs to 32 secret ones (section 5.1.5)."""
    digest = bytearray(hashlib.sha512(seed).digest()[:32])
    digest[0] &= 248
    digest[31] = digest[31] & 127 | 64
    x, y, z, _ = _multiply(int.from_bytes(digest, "little"), _base())
    inverse = pow(z, -1, _P)
    x, y = x * inverse % _P, y * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def format_private_key(seed: bytes, comment: str) -> str:
    """The key as an unencrypted file of OpenSSH's (PROTOCOL.key there)."""
    public = public_of(seed)
    kind = _string(b"ssh-ed25519")
    inner = bytes(8) + kind + _string(public) + _string(seed + public)
    inner += _string(comment.encode())
    inner += bytes(range(1, 9))[: -len(inner) % 8]
    blob = b"openssh-key-v1\0" + _string(b"none") * 2 + _string(b"")
    blob += (1).to_bytes(4, "big") + _string(kind + _string(public)) + _string(inner)
    text = base64.b64encode(blob).decode("ascii")
    lines = [text[at : at + _WIDTH] for at in range(0, len(text), _WIDTH)]
    name = "OPENSSH PRIVATE KEY"
    return "\n".join([f"-----BEGIN {name}-----", *lines, f"-----END {name}-----", ""])


def format_blob(seed: bytes) -> bytes:
    """The public key as SSH sends it (RFC 8709)."""
    return _string(b"ssh-ed25519") + _string(public_of(seed))


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _base() -> Point:
    square = (_BASE_Y**2 - 1) * pow(_D * _BASE_Y**2 + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * pow(2, (_P - 1) // 4, _P) % _P
    x = _P - x if x & 1 else x
    return x, _BASE_Y, 1, x * _BASE_Y % _P


def _add(one: Point, other: Point) -> Point:
    a = (one[1] - one[0]) * (other[1] - other[0]) % _P
    b = (one[1] + one[0]) * (other[1] + other[0]) % _P
    c = 2 * one[3] * other[3] * _D % _P
    d = 2 * one[2] * other[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _multiply(number: int, point: Point) -> Point:
    total: Point = (0, 1, 1, 0)
    while number:
        if number & 1:
            total = _add(total, point)
        point = _add(point, point)
        number >>= 1
    return total
