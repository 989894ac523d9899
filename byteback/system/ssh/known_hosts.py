"""known_hosts files: which keys a server was seen with before, see sshd(8)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

SSH_PORT = 22


@dataclass(frozen=True)
class HostKeyLine:
    """A key that stands for a host in a known_hosts file."""

    kind: str
    blob: bytes
    is_revoked: bool
    path: Path
    name: str  # the one by which the line was found


def names_of(host: str, port: int) -> list[str]:
    """The name of a server in known_hosts: ``host``, or ``[host]:port``."""
    host = host.lower()
    return [host] if port == SSH_PORT else [f"[{host}]:{port}"]


def find_keys(paths: Iterable[Path], names: Iterable[str]) -> list[HostKeyLine]:
    """All keys that the files know any of ``names`` by, hashed names included.

    Files that are missing or unreadable, and lines that are no such lines, count for
    nothing. So do certificate authorities: what they vouch for is then asked about.
    """
    wanted = list(names)
    found = []
    for path in paths:
        try:
            lines = path.read_bytes().splitlines()
        except OSError:
            continue
        for line in lines:
            known = _parse(line, wanted, path)
            if known is not None:
                found.append(known)
    return found


def format_line(name: str, kind: str, blob: bytes) -> str:
    """One line that binds a key to ``name``, without its newline."""
    return f"{name} {kind} {base64.b64encode(blob).decode('ascii')}"


def _parse(line: bytes, names: list[str], path: Path) -> HostKeyLine | None:
    words = line.decode("utf-8", "replace").split()
    if not words or words[0].startswith("#"):
        return None
    marker = words.pop(0) if words[0].startswith("@") else ""
    if len(words) < 3 or marker not in ("", "@revoked"):
        return None
    try:
        blob = base64.b64decode(words[2], validate=True)
    except (binascii.Error, ValueError):
        return None
    found = [name for name in names if _matches(words[0], name)]
    if not found:
        return None
    return HostKeyLine(words[1], blob, marker == "@revoked", path, found[0])


def _matches(patterns: str, name: str) -> bool:
    if patterns.startswith("|"):
        return _matches_hash(patterns, name)
    verdict = False
    for pattern in patterns.lower().split(","):
        if pattern.startswith("!"):
            if _is_match(name, pattern[1:]):
                return False
        elif _is_match(name, pattern):
            verdict = True
    return verdict


def _is_match(name: str, pattern: str) -> bool:
    # ssh's patterns know * and ? alone; brackets stand around names with a port.
    return fnmatchcase(name, pattern.replace("[", "[[]"))


def _matches_hash(hashed: str, name: str) -> bool:
    parts = hashed.split("|")
    if len(parts) != 4 or parts[1] != "1":
        return False
    try:
        salt, digest = (base64.b64decode(x, validate=True) for x in parts[2:])
    except (binascii.Error, ValueError):
        return False
    mine = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return hmac.compare_digest(mine, digest)
