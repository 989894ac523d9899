"""Attacks by what a session asks for, and by what comes with it."""

from __future__ import annotations

import json
import socket
import subprocess
import time

import pytest

from tests.integration.conftest import (
    free_port,
)
from tests.integration.hostile.processes import flood, wait_for
from tests.integration.hostile.world import (
    HOST,
    PROOF,
    VICTIM,
    World,
    has_control_characters,
)
from tests.integration.programs import SEARCH_PATH
from tests.waiting import PATIENCE_S

COMMANDS = [
    "",
    "sh",
    "id",
    f"touch {PROOF}",
    f"rsync; touch {PROOF}",
    f"byteback-receive --ping; touch {PROOF}",
    f"byteback-receive --ping && touch {PROOF}",
    f"byteback-receive --ping `touch {PROOF}`",
    f"byteback-receive --ping $(touch {PROOF})",
    f"rsync --server -lre.LsfxC . $(touch {PROOF})",
    f"byteback-receive --ping\ntouch {PROOF}",
    f"byteback-receive --ping | touch {PROOF}",
    "internal-sftp",
    "/usr/lib/openssh/sftp-server",
    "scp -t STORE/.ssh/authorized_keys",
    "scp -f STORE/notes",
    "byteback-setup-client-receive evil.example ssh-ed25519 AAAA",
    "byteback-receive --host victim.example --ping",
    "byteback-receive --ping --host victim.example",
    "byteback-receive --complete --root VICTIM",
    "byteback-snapshot --root VICTIM",
    "byteback-prune --prune-force",
    "/usr/bin/rsync --server --sender -lr . STORE/notes",
    "sudo byteback-prune --prune-force",
    "sudo rsync --server . .",
    "restore --snapshot * /etc",
    "git-upload-pack STORE",
    "true",
    "exec sh",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_command(filtered_world: World, command: str) -> None:
    heard = filtered_world.ssh(command, *filtered_world.shared)
    # 12 is rsync's: what stands in its path's place is ignored, and nobody spoke.
    assert heard.status in (9, 12, 255), heard
    assert heard.status == 12 or heard.stdout == b""
    filtered_world.check(heard)


def test_ping_is_honest_use(filtered_world: World) -> None:
    heard = filtered_world.ssh("byteback-receive --ping --json")
    assert json.loads(heard.stdout)["host"] == HOST
    filtered_world.check_honest_backup()
    filtered_world.check_honest_restore()


BYTES = [
    b"byteback-receive --ping \xff\xfe",
    b"rsync --server -lr\xff . .",
    b"byteback-receive --ping " + b"A" * 100_000,
    b"rsync --server " + b"-v " * 30_000 + b". .",
    b"byteback-restore --server --sender -lr . " + b"/{a,b}" * 3000,
    b"byteback-receive --snapshot * --list " + b"{a,b}" * 40,
    b"byteback-receive --snapshot * --list " + b"/*" * 2000,
    b"byteback-receive --snapshot * --list /" + b"[" * 10_000,
    b"byteback-receive --snapshot * --list /" + b"*a" * 4000,
    "byteback-receive --ping \u202e\u2066".encode(),
    b"byteback-receive --snapshot " + b"*" * 250 + b"x --list /x",
    b"byteback-restore --snapshot * --server --sender -lr . " + b"=2E=2E/" * 500,
]


@pytest.mark.parametrize(
    "command", BYTES, ids=lambda c: c[:44].decode("ascii", "replace")
)
def test_bytes(world: World, command: bytes) -> None:
    started = time.monotonic()
    heard = world.ssh(command, *world.shared)
    assert heard.status in (0, 1, 9, 12), heard
    assert time.monotonic() - started < PATIENCE_S
    assert not has_control_characters(heard.stderr)
    world.check(heard)
    world.check_honest_use()


def test_a_request_longer_than_linux_passes_on(world: World) -> None:
    """sshd cannot start anything with an environment variable of 128 KiB."""
    heard = world.ssh(b"byteback-receive --ping " + b"A" * 130_000)
    assert heard.status != 0
    world.check(heard)


@pytest.mark.parametrize(
    "variable",
    [
        "BYTEBACK_HOST=victim.example",
        "PYTHONSTARTUP=EVIL",
        "PYTHONPATH=WORKSHOP",
        "PYTHONINSPECT=1",
        "PYTHONHOME=WORKSHOP",
        "LD_PRELOAD=WORKSHOP/evil.so",
        "BASH_ENV=EVIL",
        "ENV=EVIL",
        "HOME=WORKSHOP",
        "LC_ALL=tr_TR.ISO-8859-9",
        "LANG=../../WORKSHOP",
        "RSYNC_PROTECT_ARGS=1",
        "RSYNC_RSH=EVIL",
        "RSYNC_CONNECT_PROG=EVIL",
        "SSH_ORIGINAL_COMMAND=byteback-prune",
    ],
)
def test_environment(world: World, variable: str) -> None:
    evil = world.workshop / "evil.py"
    evil.write_text(f"#!/bin/sh\ntouch {PROOF}\n")
    evil.chmod(0o755)
    (world.workshop / "byteback.py").write_text(f"open({str(PROOF)!r}, 'w')\n")
    variable = variable.replace("WORKSHOP", str(world.workshop))
    variable = variable.replace("EVIL", str(evil))
    heard = world.ssh("byteback-receive --ping --json", "-o", f"SetEnv={variable}")
    assert json.loads(heard.stdout)["host"] == HOST
    world.check(heard)


def test_environment_that_sshd_lets_through(world: World) -> None:
    """As AcceptEnv LANG LC_* and worse would: straight at the forced command."""
    forced = ["/usr/local/bin/byteback-receive", "--host", HOST]
    hostile = {
        "SSH_ORIGINAL_COMMAND": "byteback-receive --ping --json",
        "SSH_CONNECTION": "203.0.113.9 1 203.0.113.1 22",
        "BYTEBACK_HOST": VICTIM,
        "HOME": str(world.victim),
        "LC_ALL": "tr_TR.ISO-8859-9",
        "PYTHONPATH": str(world.workshop),
        "PYTHONIOENCODING": "utf-16",
        "PYTHONWARNINGS": "error",
        "TZ": "../../../" + str(world.victim),
        "TMPDIR": str(world.victim),
    }
    done = subprocess.run(
        ["runuser", "-u", "byteback", "--", "env", "-i", "PATH=" + SEARCH_PATH]
        + [f"{name}={value}" for name, value in hostile.items()]
        + forced,
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["host"] == HOST


def test_no_forwarding_no_terminal(world: World) -> None:
    """authorized_keys says "restrict": seen from what then does not work."""
    port = free_port()
    words = world.ssh_words("-N", "-L", f"{port}:127.0.0.1:{world.port}")
    with flood(words, 1) as (session,):
        # The client's own ssh listens there, whatever the server thinks of it.
        wait_for(lambda: session.poll() is not None or is_listening(port))
        assert session.poll() is None
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as probe:
            assert probe.recv(10) == b"", "forwarded to the server's own port"
    heard = world.ssh(
        "byteback-receive --ping",
        "-R",
        f"{free_port()}:127.0.0.1:1",
        "-o",
        "ExitOnForwardFailure=yes",
    )
    assert heard.status == 255
    heard = world.ssh("byteback-receive --ping", "-tt")
    assert b"PTY allocation request failed" in heard.stderr
    heard = world.ssh("sftp", "-s")
    assert heard.status in (9, 255)
    world.check(heard)


def is_listening(port: int) -> bool:
    """True if a connection to that port of this machine is taken."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
