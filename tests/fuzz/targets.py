"""All readers of what others wrote, by name, and examples of what they read."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.fuzz import client_side, server_side

RECORDED = Path(__file__).parents[1] / "unit" / "rsync_requests.txt"
KEY = (
    b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
)
ENTRY = (
    b'{"snapshot": "2026-11-22T20:15+0000", "path": "/etc/hosts", "mode": 33188, '
    b'"size": 9, "uid": 0, "gid": 0, "mtime_ns": 1500000000000000000, "target": null, '
    b'"device": [1, 3], "first_seen": "current", "change": "new"}\n'
)
END = b'{"found": %d, "current_is_whole": true, "incomplete": ["current"], "size": 1}\n'

TARGETS: dict[str, Callable[[bytes], None]] = {
    "request": server_side.read_request,
    "patterns": server_side.read_patterns,
    "key-line": server_side.read_key_line,
    "enrolment": server_side.read_enrolment,
    "fake-stat": server_side.read_fake_stat,
    "settings": server_side.read_settings,
    "snapshot-name": server_side.read_snapshot_name,
    "replies": client_side.read_replies,
    "listing": client_side.read_listing,
    "differences": client_side.read_differences,
    "rsync-output": client_side.read_rsync_output,
    "complaints": client_side.read_complaints,
    "enrol-reply": client_side.read_enrol_reply,
    "known-hosts": client_side.read_known_hosts,
    "destination": client_side.read_destination,
}
# How much of the time each gets; the others get one share.
SHARES = {"request": 6, "patterns": 3, "listing": 3, "enrolment": 2, "key-line": 2}

EXAMPLES: dict[str, list[bytes]] = {
    "patterns": [b"/etc/**/[!a-z]*.{conf,d}\0/home/\\*\0", b"/{..,.}/{..,x}/\0"],
    "key-line": [
        b'restrict,command="/usr/bin/byteback-receive --host a.b" ' + KEY + b" c\n",
        b'command="byteback-receive",from="192.0.2.1",'
        b'environment="BYTEBACK_HOST=old" ' + KEY,
        b'restrict,command="/x/byteback-setup-client-receive --forced" ' + KEY,
    ],
    "enrolment": [
        b"byteback-setup-client-receive --json --replace-key a.b " + KEY + b" comment",
        b"byteback-setup-client-receive old " + KEY,
    ],
    "fake-stat": [b"100644 0,0 1000:1000", b"20666 1,3 0:0\0"],
    "settings": [
        (
            b"snapshot_interval_hours = 6.0\nmin_percent = 5\nmax_percent = 10.5\n"
            b'confinement = "require"\ngrowth_factor = 3\n'
            b'[host."client.example"]\ngrowth_percent = 2\nio_timeout_s = 100\n'
        )
    ],
    "snapshot-name": [b"2026-11-22T20:15+0000", b"2014-05-01T03:00"],
    "replies": [
        b'{"byteback": "1.0", "protocol": 1, "host": "a"}\n',
        b'{"snapshot": null, "newest": "2026-11-22T20:15+0000"}\n',
    ],
    "listing": [ENTRY + END % 1, END % 0],
    "differences": [ENTRY + END % 1],
    "rsync-output": [
        b"      1,234,567  45%    1.23MB/s    0:00:12\r",
        b"Number of files: 1,234 (reg: 1,000)\nTotal bytes sent: 12\n",
        b">f.st...... etc/a\\#012b\n*deleting   x\ncd+++++++++ d/\n12 name\n",
        b"a is newer\n",
    ],
    "complaints": [
        b"\x49byteback-receive: error: no\n  hint: why\n",
        b"\xffPermission denied (publickey).\n",
    ],
    "enrol-reply": [
        b"\0byteback 1.0: enrolled a with key SHA256:x\n\0",
        b"\x09\0byteback-setup-client-receive: error: no\n  hint: --replace-key\n",
    ],
    "known-hosts": [b"server.example,[::1]:22 " + KEY, b"@revoked |1|eA==|eA== " + KEY],
    "destination": [b"a@b.example:/x", b"ssh://u@[::1]:22/path"],
}


def recorded_requests() -> list[bytes]:
    """Requests that real clients have sent."""
    return [
        line.partition("\t")[2].encode()
        for line in RECORDED.read_text().splitlines()
        if line and not line.startswith("#")
    ]


def examples(name: str) -> list[bytes]:
    """Proper input of the reader, whole and in pieces."""
    if name == "request":
        return recorded_requests()
    whole = EXAMPLES[name]
    pieces = [piece for one in whole for piece in re.split(rb"[ ,\n]", one)]
    return [*whole, *pieces]
